"""What is known of copies of object storage: which version of each object a file is a copy of.

One JSON file a bucket, in the folder of its copies, changed by one process at a time. It tells a copy that is further
along than the store (a job that was killed) from one that is behind it (another machine went on), and the traces of a
write that was cut short from somebody else's work. Copying is `object_folders`.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from embinv.data.folders import whole_file

INDEX = ".copies.json"
MARKERS = frozenset({"_SUCCESS", "complete", "config.json"})  # say that the rest is there, and so go last

Owned = Callable[[str], bool]


def everything(name: str) -> bool:
    """Of a folder that belongs to one job alone."""
    return True


@dataclass(frozen=True)
class ObjectFolder:
    """A folder in an object store and the copy of it.

    Attributes:
        url: such as s3://bucket/runs/my.
        copy: the folder on the file system, below `root`/protocol/bucket.
        owned: which of its files, by their paths from the folder, are meant; hidden ones never are.
    """

    url: str
    copy: Path
    owned: Owned = everything

    def beside(self, name: str) -> "ObjectFolder":
        """Another folder that lies where this one does."""
        return ObjectFolder(f"{self.url.rpartition('/')[0]}/{name}", self.copy.with_name(name))


@dataclass(frozen=True)
class Object:
    """A file in the store."""

    size: int
    version: str


def is_meant(folder: ObjectFolder, name: str) -> bool:
    """Whether a file, by its path from the folder, is one of those that are copied."""
    hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)  # locks, what is being written
    return name not in ("", ".") and not hidden and folder.owned(name)


def is_marker(name: str) -> bool:
    """Whether a file says that others are there."""
    return PurePosixPath(name).name in MARKERS


def as_copied(note: Mapping[str, Any] | None, path: Path) -> bool:
    """Whether a file is there and what it was when it was copied last; `note` is None if it never was."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return note is not None and stat.st_size == note["size"] and stat.st_mtime_ns == note["mtime_ns"]


def unchanged(note: Mapping[str, Any] | None, path: Path, there: Object) -> bool:
    """Whether file and object are the same."""
    return note is not None and note["version"] == there.version and as_copied(note, path)


class CopyIndex:
    """The index of a bucket.

    Attributes:
        files: by URL, the version that a file is a copy of, and its size and time then.
        pushes: by URL of a folder that is being written to the store, or whose writing was cut short: the sizes of
            what is sent, and the names of what is deleted.
    """

    def __init__(self, tree: dict[str, Any]) -> None:
        self.files: dict[str, dict[str, Any]] = tree.get("files", {})
        self.pushes: dict[str, dict[str, Any]] = tree.get("pushes", {})

    def of(self, folder: ObjectFolder) -> dict[str, dict[str, Any]]:
        """What is known of a folder's files, by their paths from it."""
        start = f"{folder.url}/"
        names = {key: key.removeprefix(start) for key in self.files if key.startswith(start)}
        return {name: self.files[key] for key, name in names.items() if is_meant(folder, name)}

    def expects(self, folder: ObjectFolder, there: Mapping[str, Object]) -> bool:
        """Whether the store is as it was left: by the last copy, or by one of ours that was cut short."""
        known = self.of(folder)
        sizes: dict[str, int] = {}
        deleted: set[str] = set()
        for url, push in self.pushes.items():
            if folder.url == url or folder.url.startswith(f"{url}/") or url.startswith(f"{folder.url}/"):
                sizes |= {f"{url}/{name}": size for name, size in push["sending"].items()}
                deleted |= {f"{url}/{name}" for name in push["deleting"]}
        for name in known.keys() | there.keys():
            key = f"{folder.url}/{name}"
            if name not in there:
                if key not in deleted and not (key in sizes and is_marker(name)):
                    return False
            elif (name not in known or known[name]["version"] != there[name].version) and there[name].size < sizes.get(
                key, there[name].size + 1
            ):
                return False
        return True

    def begin(self, folder: ObjectFolder, sending: Mapping[str, int], deleting: Iterable[str]) -> None:
        """A folder is about to be written; what an earlier try may have sent still counts."""
        before = self.pushes.get(folder.url, {"sending": {}, "deleting": []})
        self.pushes[folder.url] = {
            "sending": before["sending"] | dict(sending),
            "deleting": sorted({*before["deleting"], *deleting}),
        }

    def note(self, folder: ObjectFolder, objects: Mapping[str, Object], copied: Mapping[str, os.stat_result]) -> None:
        """Store and copy are equal now; `copied` says what the files were like that were copied just before."""
        before = self.of(folder)
        for name in before:
            del self.files[f"{folder.url}/{name}"]
        for name, each in objects.items():
            if name in copied:
                stamp = {"size": copied[name].st_size, "mtime_ns": copied[name].st_mtime_ns}
            elif name in before:
                stamp = before[name]
            else:
                continue
            self.files[f"{folder.url}/{name}"] = {**stamp, "version": each.version}
        self.pushes.pop(folder.url, None)


@contextmanager
def open_index(folder: ObjectFolder, root: Path) -> Iterator[CopyIndex]:
    """The index of a folder's bucket, for one process at a time; what is changed in it is kept.

    Raises:
        ValueError: it cannot be written, or is damaged.
    """
    bucket = root.joinpath(*folder.copy.relative_to(root).parts[:2])
    path = bucket / INDEX
    try:
        bucket.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (bucket / f"{INDEX}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_text(encoding="utf-8") if path.is_file() else "{}"
            index = CopyIndex(json.loads(before))
            yield index
            now = json.dumps(vars(index))
            if now != before:
                with whole_file(path) as partial:
                    partial.write_text(now, encoding="utf-8")
                    partial.chmod(0o600)
    except OSError as error:
        raise ValueError(
            f"{bucket}: cannot be written ({error.strerror}); set EMBINV_WORK to another folder"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: is damaged ({error}); move the copies in {bucket} away, and they are fetched again"
        ) from error
