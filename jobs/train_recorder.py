"""What a training run leaves to be looked at: log and progress lines, TensorBoard events, plot, checkpoint folders."""

from json import dumps, loads
from pathlib import Path
from typing import Any

from embinv.checkpoint import CheckpointConfig, embedding_statistics, save_checkpoint
from embinv.config import Config
from embinv.data.pairs import Pairs
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.mdlm import ConditionalMDLM, count_parameters
from embinv.training.ema import EMA
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.plot import draw_training

PROGRESS_FILE = "progress.jsonl"
LOG_FILE = "train.log"


class Recorder:
    """What rank 0 leaves behind while training: progress lines, TensorBoard events, plot and checkpoint folders."""

    def __init__(
        self,
        out: Path,
        config: Config,
        recipe: PairsRecipe,
        tokenizer: TextTokenizer,
        vocabulary: Vocabulary,
        pairs: Pairs,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.out = out
        self.config, self.recipe, self.tokenizer, self.vocabulary = config, recipe, tokenizer, vocabulary
        self.statistics = embedding_statistics(pairs.embeddings)
        self.board = SummaryWriter(str(self.out / "tensorboard"))
        self.progress_path = self.out / PROGRESS_FILE

    def say(self, line: str) -> None:
        """Adds a line to the run's log, which the driver shows."""
        with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def progress(self, event: Progress) -> None:
        """One line to read, one to plot."""
        left = event.seconds * (1 / event.share - 1) if event.share > 0 else 0.0
        self.say(
            f"step {event.step:>6}  {event.share:>4.0%}  loss {event.loss:.3f}  rate {event.rate:.2f}  "
            f"{event.samples_per_second:,.0f} samples/s  {left:,.0f} s left"
        )
        row = {"step": event.step, "seconds": round(event.seconds, 2), "loss": event.loss, "rate": event.rate}
        with self.progress_path.open("a", encoding="utf-8") as file:
            file.write(dumps(row) + "\n")
        self.board.add_scalar("train/loss", event.loss, event.step)
        self.board.add_scalar("train/rate", event.rate, event.step)
        self.board.add_scalar("train/samples_per_second", event.samples_per_second, event.step)

    def validated(self, event: Validated, ema: EMA, state: RunState) -> None:
        """Saves the EMA weights as `last`, and as `checkpoint` if they are the best so far."""
        figures = event.figures
        for name, value in figures.as_row().items():
            self.board.add_scalar(f"validation/{name}", value, state.step)
        self.board.flush()
        self.say(
            f"step {state.step:>6}  validation: {figures.token_accuracy:.1%} of tokens from a full mask, "
            f"{figures.exact_match:.1%} whole texts, NELBO {figures.nelbo:.3f}{'  (best)' if event.best else ''}"
        )
        model = ema.model
        assert isinstance(model, ConditionalMDLM)
        config = CheckpointConfig(
            name=self.config.name,
            model=model.config,
            pairs=self.recipe,
            training=self._summary(model, state, figures.as_row(), figures.n),
            statistics=self.statistics,
        )
        for name in ("last", "checkpoint") if event.best else ("last",):
            save_checkpoint(self.out / name, model, config, self.tokenizer, self.vocabulary)
        rows = [loads(line) for line in self.progress_path.read_text(encoding="utf-8").splitlines()]
        draw_training(self.out / "training.png", rows, state.history, f"{self.config.name}: {state.step:,} steps")

    def _summary(self, model: ConditionalMDLM, state: RunState, row: dict[str, float], n: int) -> dict[str, Any]:
        samples = state.step * self.config.training.batch_size
        return {
            "steps": state.step,
            "samples": samples,
            "seconds": round(state.seconds, 1),
            "samples_per_second": round(samples / state.seconds, 1),
            "parameters": count_parameters(model)["total"],
            "parameters_non_embedding": count_parameters(model)["non_embedding"],
            "validation_texts": n,
            "validation_steps": self.config.training.validation_steps,
            **{f"validation_{name}": round(value, 4) for name, value in row.items()},
        }

    def forget_after(self, step: int) -> None:
        """Drops the progress lines of steps that a crash took back."""
        lines = self.progress_path.read_text(encoding="utf-8").splitlines() if self.progress_path.is_file() else []
        kept = [line for line in lines if loads(line)["step"] <= step]
        self.progress_path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
