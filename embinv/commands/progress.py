"""How far a command is, on stderr: one line that is written over on a terminal, a line a minute in a log."""

import sys
import time

LINE_EVERY = 60.0  # seconds


class Progress:
    """Lines of one command."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._width = 0

    def now(self, line: str) -> None:
        """A state that the next one replaces."""
        if sys.stderr.isatty():
            print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        elif time.monotonic() - self._said >= LINE_EVERY:
            self.line(line)

    def line(self, line: str) -> None:
        """A line that stays."""
        start = "\r" if self._width else ""
        print(f"{start}{line.ljust(self._width)}".rstrip(" "), file=sys.stderr, flush=True)
        self._said, self._width = time.monotonic(), 0
