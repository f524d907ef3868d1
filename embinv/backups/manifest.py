"""What a backup holds: backup.json, written last, so that a folder without it is none.

    kind, label, made   a checkpoint or a run, its name, when it was copied (UTC)
    content             SHA-256 over all paths and checksums: two backups with the same hold the same
    embinv              release that wrote it
    files               path -> bytes, SHA-256

Which files of a folder belong to it is said here too. Nothing is copied here.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from embinv.data.schema import reasons
from embinv.data.versions import this_release

MANIFEST_FILE = "backup.json"
FORMAT = 1
STAMP = "%Y%m%dT%H%M%SZ"
NAME = re.compile(r"(?P<label>.+)-(?P<stamp>\d{8}T\d{6}Z)-(?P<content>[0-9a-f]{12})")
READ_BYTES = 1 << 20
# What --resume, jobs/evaluate.py and a reader need of a run; texts and pairs are data, and copied as such.
OF_A_RUN = (
    "checkpoint last state-* _run.json settings.yaml provenance.json progress.jsonl validations.jsonl examples.jsonl "
    "train.log failures.log training.png report.json report.md report.html"
).split()

Kind = Literal["checkpoint", "run"]
MARKS: Mapping[Kind, tuple[str, ...]] = {
    "checkpoint": ("config.json", "model.safetensors"),
    "run": ("_run.json",),
}


class File(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """backup.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = FORMAT
    kind: Kind
    label: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    made: str = Field(pattern=r"^\d{8}T\d{6}Z$")
    content: str = Field(pattern="^[0-9a-f]{64}$")
    embinv: str
    files: dict[str, File] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _stays_inside(cls, files: dict[str, File]) -> dict[str, File]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
                raise ValueError(f"{name!r} is no path inside a backup")
        return files

    @property
    def name(self) -> str:
        """Of the folder that it lies in."""
        return f"{self.label}-{self.made}-{self.content[:12]}"

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def manifest_of(kind: Kind, label: str, files: dict[str, File]) -> Manifest:
    """The manifest of a backup that is made now.

    Raises:
        ValueError: the label cannot stand in a folder's name.
    """
    made = datetime.now(UTC).strftime(STAMP)
    try:
        return Manifest(
            kind=kind, label=label, made=made, content=content_of(files), embinv=this_release(), files=files
        )
    except ValidationError as error:
        raise ValueError(f"--label {label}: give letters, digits, dots and dashes ({reasons(error)})") from error


def content_of(files: Mapping[str, File]) -> str:
    """SHA-256 over paths and checksums."""
    lines = (f"{name} {files[name].bytes} {files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def own_files(folder: Path, kind: Kind) -> dict[str, Path]:
    """The files of a checkpoint or a run by their path inside it; what is being written is left out.

    Raises:
        ValueError: the folder is none.
    """
    missing = [name for name in MARKS[kind] if not (folder / name).is_file()]
    if missing:
        made_by = "jobs/train.py wrote" + ("" if kind == "run" else ", or `embinv import`")
        raise ValueError(f"--{kind} {folder}: no {missing[0]}; give a folder that {made_by}")
    found: dict[str, Path] = {}
    tops = ["*"] if kind == "checkpoint" else OF_A_RUN
    for top in (path for pattern in tops for path in folder.glob(pattern)):
        for path in [top] if top.is_file() else top.rglob("*"):
            inside = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in inside.parts)  # partial files, locks
            if path.is_file() and not hidden and inside.as_posix() != MANIFEST_FILE:
                found[inside.as_posix()] = path
    return found


def described(files: Mapping[str, Path]) -> dict[str, File]:
    """Size and checksum of each file."""
    found: dict[str, File] = {}
    for name, path in files.items():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = File(bytes=file.tell(), sha256=digest)
    return found
