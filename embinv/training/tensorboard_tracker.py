"""TensorBoard's event files, in the run's folder under tensorboard/."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from embinv.training.tracking import TrackedRun, markdown


class TensorBoardTracker:
    """Writes event files.

    A run that goes on takes back the points of steps that it will make again, and TensorBoard hides them.
    """

    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a killed process would take what is still in its memory

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.writer.add_text(name, markdown(columns, rows), step)
        self.writer.flush()

    def picture(self, step: int, name: str, path: Path) -> None:
        """Nothing: TensorBoard draws the same figures itself."""

    def close(self, finished: bool) -> None:
        self.writer.close()
