"""Object storage for jobs: what they read is fetched to a file system, and what they made is written back.

Every job works on folders (whole or not at all, one writer at a time), which an object store does not have. So
s3://BUCKET/FOLDER is worked on as a copy below EMBINV_WORK; on a cluster of several nodes that is storage which all of
them share. The copy is written back when the job ends, in whatever way but SIGKILL (`ray job stop` sends one after
3 s): then it lies where it was, and the same command goes on from it. Where what is half done can be gone on with
elsewhere, `every` writes it back in between too.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from embinv.data.copy_index import ObjectFolder, Owned, everything
from embinv.data.object_folders import (
    copy_of,
    fetch,
    folder_or_file,
    is_object_url,
    push,
    require_writable,
    url_of,
)
from embinv.data.sole_writer import is_locked, sole_writer
from jobs.arguments import output_folder

WRITE_BACK_S = 300.0  # from one copy to an object store to the next, while a job is at work
WORK = "EMBINV_WORK"
"""In the environment: the folder of the copies."""


def work_folder() -> Path:
    """Where copies lie: EMBINV_WORK, or a folder in the home directory."""
    given = os.environ.get(WORK)
    return Path(given).expanduser().resolve() if given else Path.home() / ".cache" / "embinv" / "objects"


def place(given: str, flag: str = "--out") -> Path:
    """The folder that a flag names: a path as `output_folder` makes it, or the copy of a folder in an object store.

    Raises:
        ValueError: it names no folder.
    """
    return copy_of(given, work_folder(), flag) if is_object_url(given) else output_folder(given, flag)


def shown(path: Path) -> str:
    """A folder as the user named it."""
    return url_of(path, work_folder()) or str(path)


@contextmanager
def staged(
    *outs: Path, inputs: Sequence[Path | None] = (), owned: Owned = everything, every: float | None = None
) -> Iterator[None]:
    """Has copies of object storage at hand while the block runs; folders of a file system are left alone.

    Args:
        outs: folders that the job goes on with and writes; with them goes what lies beside, `.NAME.progress`.
        inputs: folders or files that are read only; None is no folder.
        owned: which files of `outs` are the job's, where a folder holds more than that.
        every: seconds; write back at this pace too.

    Raises:
        ValueError: a store cannot be reached, or somebody else wrote there meanwhile.
    """
    root = work_folder()
    written = [
        each
        for path in outs
        if (url := url_of(path, root)) is not None
        for folder in [ObjectFolder(url, path, owned)]
        for each in (folder, folder.beside(f".{path.name}.progress"))
    ]
    with ExitStack() as stack:
        for folder in written:
            stack.enter_context(_alone(folder, root))
        for path in inputs:
            if path is None or (url := url_of(path, root)) is None:
                continue
            if is_at_work(path, root):
                _say(f"{url}: a job of this machine is writing there; what it has so far is read")
                continue
            fetch(folder_or_file(url, path), root, _say, read_only=True)
        for folder in written[::2]:  # what lies beside an output may be written where that may
            require_writable(folder)
        for folder in written:
            fetch(folder, root, _say)
        with _pushed(written, root, every):
            yield


def is_at_work(copy: Path, root: Path) -> bool:
    """Whether a job of this machine writes a folder, or one that it lies in, and will write it back."""
    below = [copy, *copy.parents][: len(copy.relative_to(root).parts) - 2]
    return any(is_locked(_guard(folder)) for folder in below)


def _guard(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}.staged")


@contextmanager
def _alone(folder: ObjectFolder, root: Path) -> Iterator[None]:
    """Keeps a second job of this machine from writing a folder back; the job itself locks the copy."""
    with ExitStack() as stack:
        try:
            if is_at_work(folder.copy.parent, root):
                raise ValueError(f"{folder.url} lies in a folder that a job is writing")
            stack.enter_context(sole_writer(_guard(folder.copy)))
        except ValueError as error:
            raise ValueError(
                f"{folder.url}: another job is writing there; wait until it ends, or choose another folder"
            ) from error
        yield


@contextmanager
def _pushed(written: Sequence[ObjectFolder], root: Path, every: float | None) -> Iterator[None]:
    """Writes copies back at the end of the block, whatever ends it, and every so often before."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep_pushing, args=(written, root, every, done), daemon=True)
    if every is not None and written:
        keeper.start()
    try:
        yield
    except BaseException:
        done.set()
        if keeper.is_alive():
            keeper.join()
        try:  # what ended the job is raised, not what followed from it
            _push_all(written, root)
        except (ValueError, OSError) as error:
            _say(
                f"not written back: {error}; what this job made lies in {', '.join(str(f.copy) for f in written[::2])}"
            )
        raise
    done.set()
    if keeper.is_alive():
        keeper.join()
    _push_all(written, root)


def _push_all(folders: Sequence[ObjectFolder], root: Path) -> None:
    for folder in folders:
        push(folder, root, _say)


def _keep_pushing(folders: Sequence[ObjectFolder], root: Path, every: float | None, done: threading.Event) -> None:
    while not done.wait(every):
        try:
            _push_all(folders, root)
        except (ValueError, OSError) as error:  # files come and go while a run is at work; the next time, or the end
            _say(f"not written back yet: {error}")


def _say(line: str) -> None:
    print(line, flush=True)
