"""The trackers that a config may name, opened together; one that fails in the middle of a run is left behind."""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embinv.training.mlflow_tracker import MLflowTracker
from embinv.training.tensorboard_tracker import TensorBoardTracker
from embinv.training.tracking import TrackedRun, Tracker, finite
from embinv.training.wandb_tracker import WandbTracker


@dataclass(frozen=True)
class Kind:
    """How a tracker is had: which module it needs, what installs it, and what opens it."""

    module: str
    install: str
    open: Callable[[TrackedRun], Tracker]


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

    Training goes on without a tracker that fails: what it would have shown is in the run's folder all the same. Only
    a run that is about to start is refused, since then it is a mistake in the settings.

    Args:
        names: of TRACKERS.
        run: what they are told.
        say: takes a sentence about a tracker that failed.

    Raises:
        ValueError: a tracker of a new run cannot be opened.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, say: Callable[[str], None]) -> None:
        require_trackers(names)
        self._say = say
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                self._open[name] = TRACKERS[name].open(run)
            except OSError as error:
                reason = f"training.trackers: {name} cannot be opened ({_one_line(error)})"
                if run.step == 0:
                    raise ValueError(f"{reason}; see to its environment variables, or leave it out") from error
                say(f"{reason}; going on without it")

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
        """Hands over what is left; a second call does nothing."""
        self._each(lambda tracker: tracker.close(finished))
        self._open.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except tracker.failures as error:
                del self._open[name]
                self._say(f"training.trackers: {name} failed ({_one_line(error)}); going on without it")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
