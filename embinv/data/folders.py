"""A finished folder or file in the place of an older one: what is there is always whole. Nothing is written here."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h and fs.h


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside a file to write to, which takes its place at the end; an error leaves what was there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an older one, which is deleted; both are on one file system.

    On Linux the two change places in one step, so that a kill at any moment leaves one of them there. Where the file
    system knows no such step, the older one is moved aside first, and is not deleted before the new one is there: a
    kill in between leaves both, under other names.
    """
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists():
        new.rename(folder)
    else:
        try:
            _exchange(new, folder)
        except OSError:
            shutil.rmtree(old, ignore_errors=True)  # left by a kill; by now there is a folder again
            folder.rename(old)
            new.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Lets two paths change places at once: renameat2(2) with RENAME_EXCHANGE.

    Raises:
        OSError: this system or file system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "no renameat2 here")
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
