"""Whether a folder of a run's state is whole: each worker lists what it wrote, with sizes and checksums.

Ray Train merges the workers' files into one folder, file by file: a full disk, a kill or a worn-out drive leaves some
of them short, missing or different, and DeepSpeed would fail on them late or not at all.
"""

import zlib
from json import dumps, loads
from pathlib import Path
from typing import Any

from jobs.arguments import write_json

BLOCK = 1 << 20  # bytes read at once


def manifest_name(rank: int) -> str:
    """The file in which a worker lists what it wrote."""
    return f"manifest-{rank}.json"


def write_manifest(folder: Path, rank: int, world: int, step: int) -> None:
    """Lists all that lies in a folder, which holds what one of `world` workers wrote at `step`."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    content = {
        "rank": rank,
        "world": world,
        "step": step,
        "files": {name: {"bytes": path.stat().st_size, "crc32": _checksum(path)} for name, path in files.items()},
    }
    write_json(folder / manifest_name(rank), {"content": content, "crc32": _checksum_of(content)})


def read_manifest(folder: Path, rank: int = 0) -> dict[str, Any]:
    """The list of one worker: `rank`, `world`, `step` and `files`.

    Raises:
        ValueError: it is absent or not what was written; the message is a phrase that names the file.
    """
    name = manifest_name(rank)
    try:
        tree = loads((folder / name).read_text(encoding="utf-8"))
        content, checksum = tree["content"], tree["crc32"]
    except FileNotFoundError:
        raise ValueError(f"{name} is missing") from None
    except (ValueError, TypeError, KeyError):  # not UTF-8, not JSON, or not the object that was written
        raise ValueError(f"{name} is cut short or damaged") from None
    if checksum != _checksum_of(content):
        raise ValueError(f"{name} is damaged")
    return content


def fault_of(folder: Path) -> str | None:
    """What is wrong with a folder into which all workers wrote: a phrase that names the file, or None."""
    try:
        first = read_manifest(folder)
        for rank in range(first["world"]):
            content = read_manifest(folder, rank)
            if (content["world"], content["step"]) != (first["world"], first["step"]):
                return f"{manifest_name(rank)} is of another step"
            for name, expected in content["files"].items():
                _require_same(folder / name, name, expected)
    except ValueError as error:
        return str(error)
    return None


def _require_same(path: Path, name: str, expected: dict[str, int]) -> None:
    if not path.is_file():
        raise ValueError(f"{name} is missing")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"{name} has {size:,} of {expected['bytes']:,} bytes")
    if _checksum(path) != expected["crc32"]:
        raise ValueError(f"{name} is not what was written (its checksum differs)")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value


def _checksum_of(content: dict[str, Any]) -> int:
    return zlib.crc32(dumps(content, sort_keys=True).encode())
