"""A file as it was when its dump was opened: whether it is still the same when its rows are given out.

Size and time of change are compared, not contents: whoever writes a file of the same length and sets its time back is
not noticed. A file that is replaced as a whole while it is read is noticed too.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from embinv.data.dumps.base import Block, BrokenDump

GO_ON = "what was done before it is kept, and the same command goes on from there"


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes and time of change in ns of one file."""

    path: str
    size: int
    changed: int

    def check(self, row: int) -> None:
        """Asks whether the file is as it was.

        Args:
            row: the first row that has not been given out.

        Raises:
            BrokenDump: it is gone, or another.
        """
        try:
            now = stamp(self.path)
        except OSError as error:
            raise BrokenDump(
                f"{self.path}: is gone from row {row} on ({error.strerror}); put it back as it was: {GO_ON}"
            ) from error
        if now != self:
            raise BrokenDump(
                f"{self.path}: was changed while it was read, seen at row {row}; let nobody write to it, or read a "
                f"copy: {GO_ON} if the rows before are the same"
            )


def stamp(path: str) -> FileStamp:
    """Takes the stamp of a file.

    Raises:
        OSError: there is no such file, or it may not be asked for.
    """
    found = os.stat(path)
    return FileStamp(path, found.st_size, found.st_mtime_ns)


def damaged(where: str, row: int, reason: object) -> BrokenDump:
    """The error for a file that can be read no further.

    Args:
        where: the file.
        row: the first row that cannot be read.
        reason: what the parser said.
    """
    first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return BrokenDump(f"{where}: is damaged or cut short at row {row} ({first}); fetch it anew: {GO_ON}")


class Damage(Exception):
    """What a reader of a file raises where it can read no further; `watched` says it in a sentence."""


_DAMAGE = (Damage, pa.ArrowException, OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError)


def watched(blocks: Iterator[Block], stamp: FileStamp) -> Iterator[Block]:
    """Passes on the blocks of a file for as long as it is what it was.

    Args:
        blocks: of this file; opened when the first is asked for.
        stamp: taken when the dump was opened.

    Raises:
        BrokenDump: the file was changed, or is damaged behind the blocks that were passed on.
    """
    row = 0
    while True:
        try:
            block = next(blocks, None)
        except _DAMAGE as error:
            stamp.check(row)  # that it was changed says more
            raise damaged(stamp.path, row, error) from error
        stamp.check(row)
        if block is None:
            return
        row += len(block)
        yield block


def open_stamped(path: str) -> FileStamp:
    """Takes the stamp of a file when its dump is opened.

    Raises:
        BrokenDump: it is not there, or may not be read.
    """
    try:
        with open(path, "rb"):
            return stamp(path)
    except OSError as error:
        raise BrokenDump(f"--vectors {path}: cannot be opened ({error.strerror}); check its permissions") from error
