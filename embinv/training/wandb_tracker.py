"""Weights & Biases. Key, project, server and mode come from its environment variables (WANDB_API_KEY, WANDB_PROJECT,
WANDB_BASE_URL, WANDB_MODE=offline and others); files that wait to be sent lie in the run's folder under wandb/.

What goes there: settings, figures, training.png and the recovered validation texts. The machine's console, code,
packages and hardware do not.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embinv.training.tracking import RunMemory, TrackedRun

PROJECT = "embinv"
MEMORY_FILE = "wandb-run.json"


class WandbTracker:
    """One Weights & Biases run. It is found again by the id in the run's folder, and goes on."""

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before the import
        import wandb

        self.wandb = wandb
        self.failures: tuple[type[Exception], ...] = (wandb.Error, OSError)
        self.memory = RunMemory(run.folder / MEMORY_FILE)
        if self.memory.id is None:
            self.memory.keep_id(uuid.uuid4().hex[:12])
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=run.name,
                id=self.memory.id,
                resume="allow",
                dir=str(run.folder),
                config=dict(run.settings),
                settings=wandb.Settings(
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    silent=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                ),
            )
        except wandb.Error as error:
            raise ConnectionError(str(error)) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, {name: values[name] for name in self.memory.unseen(step, values)})

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.memory.unseen(step, [name]):
            table = self.wandb.Table(columns=list(columns))
            for row in rows:
                table.add_data(*row)
            self._log(step, {name: table})

    def picture(self, step: int, name: str, path: Path) -> None:
        if self.memory.unseen(step, [name]):
            self._log(step, {name: self.wandb.Image(str(path))})

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if values:
            self.run.log(values, step=step)
            self.memory.note(dict.fromkeys(values, step))

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
