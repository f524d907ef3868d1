"""The seam to whatever shows a run's figures while it goes on, and what is remembered of one that lives elsewhere."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a run.

    Attributes:
        folder: of the run; what a tracker keeps on disk lies there.
        name: of the config.
        settings: the whole config, plain values; it holds no secrets.
        step: optimizer steps made before: 0, or what the run goes on from.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    step: int


class Tracker(Protocol):
    """Shows figures, texts and pictures by step. Steps never go back within one tracker.

    To open one raises OSError if it cannot be reached. A call that raises one of `failures` may be made again.

    Attributes:
        failures: what its service raises when it cannot be reached or refuses.
    """

    failures: tuple[type[Exception], ...]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each figure; all are finite."""
        ...

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table of texts."""
        ...

    def picture(self, step: int, name: str, path: Path) -> None:
        """Shows a PNG, in place of an earlier one of that name."""
        ...

    def close(self, finished: bool) -> None:
        """Hands over what is left; `finished` says whether the run came to its end."""
        ...


class RunMemory:
    """What a service outside the run's folder has of the run: its id there, and the last step of each figure.

    A run that goes on from its last save makes some steps again. A service keeps both points of such a step, so they
    are not sent again. Noted once they are sent: an outage costs no point, and a crash in between may double one.

    Args:
        path: a JSON file in the run's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._id: str | None = known.get("id")
        self._last: dict[str, int] = known.get("last", {})

    @property
    def id(self) -> str | None:
        """The run's id in the service; None before there is one."""
        return self._id

    def keep_id(self, run_id: str) -> None:
        """Keeps the id for later sittings."""
        self._id = run_id
        self._write()

    def unseen(self, step: int, names: Iterable[str]) -> list[str]:
        """Those of the figures that have no point at this step or a later one."""
        return [name for name in names if self._last.get(name, -1) < step]

    def note(self, steps: Mapping[str, int]) -> None:
        """Notes the last step at which the service has a point of each figure."""
        if steps:
            self._last |= steps
            self._write()

    def _write(self) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"id": self._id, "last": self._last}), encoding="utf-8")
        os.replace(partial, self.path)


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """The figures that have a value."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts as Markdown."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in (columns, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:]])
