"""How far a job is: a bar with rows a second and time left on a terminal, one line a minute in a log.

What counts is what is committed to the output folder; it is read off the files' footers, each once.
"""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from json import loads
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.arguments import write_json

LINE_EVERY = 60.0  # seconds
BAR_EVERY = 0.5


class RowCounter:
    """Rows in the committed Parquet files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, int] = {}

    def __call__(self) -> int:
        """The number now; a file that is being written just now counts the next time."""
        for path in self.folder.rglob("*.parquet"):
            if path not in self._known:
                try:
                    self._known[path] = pq.read_metadata(path).num_rows
                except (OSError, pa.ArrowException):
                    continue
        return sum(self._known.values())


class Clock:
    """Seconds of work of all sittings, kept in a file.

    Attributes:
        earlier: those of the sittings before this one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier: float = loads(path.read_text(encoding="utf-8")) if path.is_file() else 0.0

    def keep(self, seconds: float) -> None:
        """Notes those of this sitting so far."""
        with suppress(OSError):  # a full disk is told where rows are written
            write_json(self.path, round(self.earlier + seconds, 2))


class Watch:
    """Shows a job's progress while the block runs, and keeps the time that it took so far.

    Args:
        count: rows done, at any time.
        total: rows in all, or None if nobody knows.
        what: the verb of the job, such as `encoded`.
        tick: called with the seconds of this sitting every now and then and at its end, to keep them.
    """

    def __init__(self, count: Callable[[], int], total: int | None, what: str, tick: Callable[[float], None]) -> None:
        self.count, self.total, self.what, self.tick = count, total, what, tick
        self.done = threading.Event()
        on_terminal = sys.stdout.isatty()
        self.thread = threading.Thread(target=self._bar if on_terminal else self._lines, daemon=True)

    def __enter__(self) -> "Watch":
        self.before = self.count()
        if self.before:
            print(f"going on: {self.before:,}{self.of_all} texts are {self.what}", flush=True)
        self.began = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
        self.tick(self.seconds)  # also of a sitting that is interrupted

    @property
    def seconds(self) -> float:
        """Of this sitting."""
        return time.monotonic() - self.began

    @property
    def of_all(self) -> str:
        """The total in words, if it is known."""
        return "" if self.total is None else f" of {self.total:,}"

    def state(self, ended: bool = False) -> tuple[int, str]:
        """Rows done, and in words the speed and, unless the block has ended, the time left."""
        rows = self.count()
        if rows == self.before:
            return rows, "no new ones yet"
        speed = (rows - self.before) / self.seconds
        if ended or self.total is None:
            return rows, f"{speed:,.0f}/s"
        left = f", {duration(max(0, self.total - rows) / speed)} left"
        return rows, f"{speed:,.0f}/s{left}"

    def _lines(self) -> None:
        while not self.done.wait(LINE_EVERY):
            self.tick(self.seconds)
            rows, state = self.state()
            print(f"{self.what} {rows:,}{self.of_all} texts ({state})", flush=True)

    def _bar(self) -> None:
        columns = (
            TextColumn(self.what),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rows]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, expand=True) as bar:
            task = bar.add_task(self.what, total=self.total, completed=self.before, rows="", state="")
            ended = False
            while not ended:
                ended = self.done.wait(BAR_EVERY)
                self.tick(self.seconds)
                rows, state = self.state(ended)
                bar.update(task, completed=rows, rows=f"{rows:,}{self.of_all}", state=state)


def duration(seconds: float) -> str:
    """A time in words: `42 s`, `7 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
