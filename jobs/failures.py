"""What went wrong on a worker, without its stack: the error that a user can act on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import ray.exceptions


def root_cause(error: BaseException) -> BaseException:
    """The exception of a task or an actor that Ray wrapped, and not what that one was in turn raised from."""
    while isinstance(error, ray.exceptions.RayError):
        wrapped = getattr(error, "cause", None) or error.__cause__
        if not isinstance(wrapped, BaseException):
            break
        error = wrapped
    return error


@contextmanager
def told_plainly(where: object) -> Iterator[None]:
    """Turns a worker's ValueError, and an OSError such as a full disk, into a ValueError of one sentence.

    Args:
        where: the folder that is written to, for the message.

    Raises:
        ValueError: in place of what a user can mend; anything else passes as it is.
    """
    try:
        yield
    except (ray.exceptions.RayError, OSError) as error:
        cause = root_cause(error)
        if isinstance(cause, OSError):
            full = cause.errno == errno.ENOSPC or "No space left on device" in str(cause)
            way_out = "free some space" if full else "check the disk and its permissions"
            what = (cause.strerror or str(cause)).strip().splitlines()[0]  # Ray Data puts lines where a file is named
            raise ValueError(
                f"{where}: cannot be written ({what}); {way_out} and run the same command again"
            ) from error
        if isinstance(cause, ValueError):
            raise ValueError(str(cause).splitlines()[0]) from error  # Ray Data adds lines about retries
        raise
