"""The trackers that a config may name, opened together; one that fails in the middle of a run is tried again."""

import importlib.util
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embinv.training.mlflow_tracker import MLflowTracker
from embinv.training.tensorboard_tracker import TensorBoardTracker
from embinv.training.tracking import TrackedRun, Tracker, finite
from embinv.training.wandb_tracker import WandbTracker

RETRY_EVERY = 300.0  # seconds: training waits for every try
TRIES = 24  # in a row, two hours
KEPT = 20_000  # calls that wait for a tracker, some ten hours of them; the oldest go first

Call = Callable[[Tracker], None]


@dataclass(frozen=True)
class Kind:
    """How a tracker is had: which module it needs, what installs it, and what opens it."""

    module: str
    install: str
    open: Callable[[TrackedRun], Tracker]


@dataclass
class Line:
    """A tracker, and what it has not been told yet.

    Attributes:
        tracker: None while it cannot be opened.
        waiting: calls in their order; one that fails stays the first.
        failed: tries in a row.
        again: when to try again, on the monotonic clock.
    """

    tracker: Tracker | None = None
    waiting: deque[Call] = field(default_factory=lambda: deque(maxlen=KEPT))
    failed: int = 0
    again: float = 0.0


TRACKERS = {
    "tensorboard": Kind("tensorboard", "pip install tensorboard", TensorBoardTracker),
    "mlflow": Kind("mlflow", "pip install 'embinv[mlflow]'", MLflowTracker),
    "wandb": Kind("wandb", "pip install 'embinv[wandb]'", WandbTracker),
}


def require_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that cannot work here; nothing is imported and nobody is asked.

    Raises:
        ValueError: a package or a key is missing; the message says what to do.
    """
    for name in names:
        kind = TRACKERS[name]
        if importlib.util.find_spec(kind.module) is None:
            raise ValueError(
                f"training.trackers names {name}, which is not installed; run `{kind.install}` on every node, or leave "
                "it out"
            )
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
    if "wandb" in names and not offline and not _has_wandb_key():
        raise ValueError(
            "training.trackers names wandb, and there is no key: set the environment variable WANDB_API_KEY, or "
            "WANDB_MODE=offline to send the run later with `wandb sync`"
        )


def _has_wandb_key() -> bool:
    """In the environment, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return Path(os.environ.get("NETRC") or Path.home() / ".netrc").is_file()


class Trackers:
    """All trackers of a run as one.

    Training goes on while one of them fails. What it has not been told is kept and it is tried again every few
    minutes, up to a bound; the run's folder holds the same figures all the time. Only a run that is about to start is
    refused, since then it is a mistake in the settings.

    Args:
        names: of TRACKERS.
        run: what they are told.
        say: takes a sentence about a tracker that failed, or answers again.

    Raises:
        ValueError: a tracker of a new run cannot be opened.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, say: Callable[[str], None]) -> None:
        require_trackers(names)
        self._run, self._say = run, say
        self._lines = {name: Line() for name in names}
        for name, line in self._lines.items():
            try:
                line.tracker = TRACKERS[name].open(run)
            except OSError as error:
                if run.step == 0:
                    raise ValueError(
                        f"training.trackers: {name} cannot be opened ({_one_line(error)}); see to its environment "
                        "variables, or leave it out"
                    ) from error
                self._failed(name, line, error)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds one point to each figure that has a value."""
        known = finite(values)
        self._each(lambda tracker: tracker.scalars(step, known))

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table of texts."""
        self._each(lambda tracker: tracker.table(step, name, columns, rows))

    def picture(self, step: int, name: str, path: Path) -> None:
        """Shows a PNG."""
        self._each(lambda tracker: tracker.picture(step, name, path))

    def close(self, finished: bool) -> None:
        """Hands over what is left, in one more try; a second call does nothing."""
        for line in self._lines.values():
            line.again = 0.0
        self._each(lambda tracker: tracker.close(finished))
        for name, line in self._lines.items():
            if line.waiting:
                self._say(f"training.trackers: {name} was not sent {len(line.waiting):,} update(s)")
        self._lines.clear()

    def _each(self, call: Call) -> None:
        for name, line in list(self._lines.items()):
            line.waiting.append(call)
            if time.monotonic() >= line.again:
                self._catch_up(name, line)

    def _catch_up(self, name: str, line: Line) -> None:
        """Tells a tracker all that waits for it, as far as it goes."""
        failures: tuple[type[Exception], ...] = (OSError,)
        try:
            if line.tracker is None:
                line.tracker = TRACKERS[name].open(self._run)
            failures = line.tracker.failures
            while line.waiting:
                line.waiting[0](line.tracker)
                line.waiting.popleft()
        except failures as error:
            self._failed(name, line, error)
            return
        if line.failed:
            self._say(f"training.trackers: {name} answers again, and has all that was kept for it")
        line.failed, line.again = 0, 0.0

    def _failed(self, name: str, line: Line, error: Exception) -> None:
        line.failed, line.again = line.failed + 1, time.monotonic() + RETRY_EVERY
        what = f"training.trackers: {name} {'failed' if line.tracker else 'cannot be opened'} ({_one_line(error)})"
        if line.failed == 1:
            self._say(f"{what}; its updates are kept, and it is tried again every {RETRY_EVERY / 60:.0f} minutes")
        elif line.failed == TRIES:
            del self._lines[name]
            self._say(f"{what} {TRIES} times in a row; going on without it")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
