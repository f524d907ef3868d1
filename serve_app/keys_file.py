"""Changing a small file of secrets: one writer at a time, whole or not at all, readable by its owner only.

What the lines mean is the business of `serve_app.keys`.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def changed_lines(file: Path, create: bool = False) -> Iterator[list[str]]:
    """Gives the lines of a file to be changed in place, and writes them when the block ends without an error.

    Args:
        file: a text file; where it is a link, what it points to is changed.
        create: whether it may be new.

    Raises:
        ValueError: it is not there and `create` is false, or is not text.
        OSError: it cannot be read or written.
    """
    file = file.expanduser().resolve()
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}; make it, or correct --file")
    with _locked(file.parent):
        if not create and not file.exists():
            raise ValueError(f"there is no file {file}; correct --file")
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines() if file.exists() else []
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not text in UTF-8; write lines `name sha256-hex`") from error
        yield lines
        _replace(file, "".join(f"{line}\n" for line in lines))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The folder, since the file itself is replaced and a lock file would be left behind.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mkstemp's mode is 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
            if file.exists() and (owner := file.stat()).st_uid != os.geteuid():
                os.chown(out.fileno(), owner.st_uid, owner.st_gid)  # root must not lock the server out
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
