"""A folder or file that only one process writes at a time. What it writes is its own matter."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_locked(out: Path) -> bool:
    """Whether some process holds the lock of `sole_writer` just now, this one included."""
    try:
        with _lock_of(out).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keeps a second job out of a folder for as long as one is at work there; a job that is killed lets go of it.

    The lock lies beside it, under a hidden name.

    Raises:
        ValueError: another job is at work.
    """
    path = _lock_of(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"--out {out}: another job is writing there; wait until it ends, or choose another folder"
                ) from None
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # opened just before the job that had it removed it
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
