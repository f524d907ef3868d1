"""The error of a disk by its name, where torch.save and safetensors only say that writing failed."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

WRITERS = ("PytorchStreamWriter", "inline_container", "(os error")  # words of those that could not write
NEARLY_NOTHING = 1 << 20  # bytes that are still free on a disk which is full to whoever writes large files


@contextmanager
def disk_errors_by_name(folder: Path) -> Iterator[None]:
    """Turns the errors of writers below the block into those of the disk; all others pass as they are.

    Args:
        folder: on the disk that is written to.

    Raises:
        OSError: ENOSPC or EIO, in place of a RuntimeError or SafetensorError about a file that was not written.
    """
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if not any(word in str(error) for word in WRITERS):
            raise
        if shutil.disk_usage(folder).free < NEARLY_NOTHING:
            raise OSError(errno.ENOSPC, "No space left on device") from error
        raise OSError(errno.EIO, str(error)) from error
