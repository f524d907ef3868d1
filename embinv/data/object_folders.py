"""Folders of an object store and their copies on a file system, kept equal on demand: `fetch` and `push`.

An object store knows no folders, no renaming and no lock, which all of our writing rests on. So what is worked on lies
in a copy, and only files that differ travel; `copy_index` knows which do. When to copy is the caller's matter; how a
store is reached is `stores`.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from embinv.data.copy_index import Object, ObjectFolder, as_copied, is_marker, is_meant, open_index, unchanged
from embinv.data.stores import EXTRAS, file_system, protocol_of, reaching

AT_ONCE = 8  # files that travel at the same time


def is_object_url(given: str) -> bool:
    """Whether a path is that of an object store."""
    return protocol_of(given) in EXTRAS


def copy_of(url: str, root: Path, flag: str) -> Path:
    """Where the copy of a folder lies below `root`.

    Raises:
        ValueError: the URI names no folder of a bucket; the message begins with `flag`.
    """
    protocol, _, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{flag} {url}: names no folder of a bucket; write {protocol}://BUCKET/FOLDER")
    return root.joinpath(protocol, *parts)


def folder_or_file(url: str, copy: Path) -> ObjectFolder:
    """What is at a URI: a folder, or of the folder around it one file.

    Raises:
        ValueError: the store cannot be reached.
    """
    with reaching(url):
        store, path = file_system(url)
        store.invalidate_cache()
        if store.isfile(path):
            return ObjectFolder(url.rpartition("/")[0], copy.parent, copy.name.__eq__)
    return ObjectFolder(url, copy)


def url_of(copy: Path, root: Path) -> str | None:
    """The folder of which this is the copy; None for any other folder."""
    if root not in copy.parents:
        return None
    protocol, *parts = copy.relative_to(root).parts
    return f"{protocol}://{'/'.join(parts)}"


# --- what is where


def listing(folder: ObjectFolder) -> dict[str, Object]:
    """The files in the store by their paths from the folder.

    Raises:
        ValueError: the store cannot be reached, or has no such bucket.
    """
    with reaching(folder.url):
        store, path = file_system(folder.url)
        store.invalidate_cache()
        try:
            found = store.find(path, detail=True)
        except FileNotFoundError:
            found = {}
        bucket = path.partition("/")[0]
        if not found and not store.exists(bucket):  # else a wrong address would pass for a folder that is empty
            raise ValueError(
                f"{folder.url}: there is no bucket {bucket}; check its name, and whose credentials are set"
            )
        names = ((PurePosixPath(name).relative_to(path).as_posix(), info) for name, info in found.items())
        return {
            name: Object(int(info["size"]), _version(info))
            for name, info in names
            if info["type"] == "file" and is_meant(folder, name)
        }


def files_of(folder: ObjectFolder) -> dict[str, Path]:
    """The files of the copy by their paths from the folder."""
    if not folder.copy.is_dir():
        return {}
    paths = (path for path in folder.copy.rglob("*") if path.is_file())
    found = {path.relative_to(folder.copy).as_posix(): path for path in paths}
    return {name: path for name, path in found.items() if is_meant(folder, name)}


def _version(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime"):
        if info.get(key):
            return str(info[key]).strip('"')
    return "unknown"


# --- copying


def fetch(folder: ObjectFolder, root: Path, on_progress: Callable[[str], None], read_only: bool = False) -> None:
    """Makes the copy what the folder in the store is, unless the copy is what it was then and has gone on since.

    Work in the copy that never got to a store which somebody else went on with is moved aside, and named.

    Args:
        folder: which.
        root: of all copies.
        on_progress: gets a line before what takes long, and where a copy is given up.
        read_only: it is nobody's work, so that what is missing of it was lost, and not deleted.

    Raises:
        ValueError: the store cannot be reached, or gives less than it lists.
    """
    there, here = listing(folder), files_of(folder)
    with open_index(folder, root) as index:
        known, equal = index.of(folder), index.expects(folder, there)
    if here and equal and (not read_only or known.keys() <= here.keys()):
        return
    if not known and not there:
        return  # was never in the store
    same = {name for name in there if name in here and unchanged(known.get(name), here[name], there[name])}
    own = [] if read_only else [name for name, path in here.items() if not as_copied(known.get(name), path)]
    if own:
        kept = _set_aside(folder, own)
        on_progress(f"{folder.url} was changed elsewhere since; what this machine had made of it is in {kept}")
    wanted = {name: there[name] for name in there if name not in same}
    if wanted:
        on_progress(f"fetching {told(wanted)} from {folder.url}")
    _each(lambda name: _get(folder, name, wanted[name].size), wanted)
    for name, path in here.items():
        if name not in there:
            path.unlink(missing_ok=True)
    with open_index(folder, root) as index:
        index.note(folder, there, {name: folder.copy.joinpath(name).stat() for name in wanted})


def push(folder: ObjectFolder, root: Path, on_progress: Callable[[str], None]) -> None:
    """Makes the folder in the store what the copy is; marks of completeness go first and come last.

    Args:
        folder: which.
        root: of all copies.
        on_progress: gets a line before what takes long.

    Raises:
        ValueError: the store cannot be reached, the copy changed meanwhile, or somebody else changed the folder since
            it was fetched: nothing was written then.
    """
    here, there = files_of(folder), listing(folder)
    with open_index(folder, root) as index:
        if not index.expects(folder, there):
            raise ValueError(
                f"{folder.url}: was changed by somebody else while this job ran, and is left as it is; what this job "
                f"made lies in {folder.copy}: copy it to another place, or delete one of the two and run again"
            )
        known = index.of(folder)
        changed = [
            name for name in here if name not in there or not unchanged(known.get(name), here[name], there[name])
        ]
        gone = [name for name in there if name not in here]
        as_sent = {name: here[name].stat() for name in changed}  # a log may grow while it travels
        index.begin(folder, {name: stat.st_size for name, stat in as_sent.items()}, gone)
    if changed:
        size = sum(stat.st_size for stat in as_sent.values())
        on_progress(f"writing {len(changed):,} files ({size / 1e6:,.1f} MB) to {folder.url}")
    store, path = file_system(folder.url)
    with reaching(folder.url):
        for name in [name for name in there if is_marker(name) and (name in gone or name in changed)]:
            store.rm_file(f"{path}/{name}")
        _each(lambda name: _put(folder, store, name, here[name]), [name for name in changed if not is_marker(name)])
        for name in [name for name in gone if not is_marker(name)]:
            store.rm_file(f"{path}/{name}")
        marks = [name for name in changed if is_marker(name)]
        _require_still(folder, marks, here, as_sent)
        _each(lambda name: _put(folder, store, name, here[name]), marks)
    now = listing(folder) if changed or gone else there
    short = [name for name, stat in as_sent.items() if name not in now or now[name].size < stat.st_size]
    if short:
        raise ValueError(f"{folder.url}/{short[0]}: did not arrive whole; run the same command again")
    with open_index(folder, root) as index:
        index.note(folder, now, as_sent)


def require_writable(folder: ObjectFolder) -> None:
    """Writes a hidden file into the folder and deletes it, before hours are spent on what is to go there.

    Raises:
        ValueError: it cannot be written.
    """
    store, path = file_system(folder.url)
    probe = f"{path}/.probe-{uuid.uuid4().hex}"
    with reaching(folder.url):
        store.pipe_file(probe, b"may this be written?")
        store.rm_file(probe)


def told(objects: Mapping[str, Object]) -> str:
    """How many files, and how large."""
    return f"{len(objects):,} files ({sum(each.size for each in objects.values()) / 1e6:,.1f} MB)"


def _each(copy: Callable[[str], None], names: Iterable[str]) -> None:
    """Copies files, some at once. The first error is raised at the end."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(copy, names))


def _get(folder: ObjectFolder, name: str, size: int) -> None:
    store, path = file_system(folder.url)
    target = folder.copy / name
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")  # two jobs may fetch the same
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with reaching(folder.url), partial.open("wb"):  # that it can be written here is no matter of the store's
            store.get_file(f"{path}/{name}", str(partial))
        if partial.stat().st_size != size:
            raise ValueError(f"{folder.url}/{name}: {partial.stat().st_size:,} of {size:,} bytes came; run again")
        partial.replace(target)
    except OSError as error:
        raise ValueError(
            f"{target}: cannot be written ({error.strerror}); check the disk and its permissions"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _put(folder: ObjectFolder, store: Any, name: str, file: Path) -> None:
    try:
        store.put_file(str(file), f"{file_system(folder.url)[1]}/{name}")
    except FileNotFoundError as error:
        if file.exists():
            raise
        raise ValueError(
            f"{file}: went away while it was copied to {folder.url}; run the same command again"
        ) from error


def _require_still(
    folder: ObjectFolder, marks: Iterable[str], here: Mapping[str, Path], as_sent: Mapping[str, os.stat_result]
) -> None:
    """Refuses to mark what changed while it travelled: parts of two states would pass for one."""
    for mark in marks:
        beside = mark.rpartition("/")[0]
        for name in as_sent:
            if name.rpartition("/")[0] == beside and not as_copied(_stamp(as_sent[name]), here[name]):
                raise ValueError(f"{folder.url}/{name}: was changed while it was copied; run the same command again")


def _stamp(stat: os.stat_result) -> dict[str, Any]:
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _set_aside(folder: ObjectFolder, names: Iterable[str]) -> Path:
    """Moves files of a copy to a folder beside it, which is never fetched, pushed or deleted."""
    kept = folder.copy.with_name(f".{folder.copy.name}.kept-{datetime.now():%Y%m%d-%H%M%S}")
    for name in names:
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.copy / name).replace(kept / name)
    return kept
