"""Which hypotheses a run makes of which pairs, and what it refuses to begin with.

What a corrector learns from must be new to the inverter: the pairs have a split of their own for it, and the checkpoint
says which texts it learnt from (jobs/train_identity.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

import pyarrow as pa

from embinv.calibration import weights_digest
from embinv.data.corrections import HypothesesRecipe
from embinv.data.pairs import split_files
from embinv.data.schema import PairsRecipe, read_recipe, require_same_recipe
from embinv.decoding.options import Choices
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.trust import require_trusted
from embinv.inverter import load_inverter
from jobs.exactly_once import progress_folder
from jobs.outputs import STATS_FILE
from jobs.same_run import earlier_run, require_same_settings
from jobs.staging import shown
from jobs.train_identity import identity_of, require_finished

SPLITS = {"correction": "train", "validation": "validation"}  # of the pairs -> of the hypotheses
SEED = 0
COMPARED = ("hypotheses", "pairs", "precision")


@dataclass(frozen=True)
class Wish:
    """What the command line asks for.

    Attributes:
        checkpoint: of the inverter.
        data: pairs with a split for correction.
        out: folder of the hypotheses.
        strategy: of the inverter; None takes its first.
        steps: passes at most.
        device: cpu or cuda, of the inverters and encoders.
        precision: of the inverters.
        workers: inverters; None takes what the cluster has room for.
        accelerator: the kind of GPU; None takes any.
        assume_unseen: take a checkpoint that does not say that the texts are new to it.
    """

    checkpoint: Path
    data: Path
    out: Path
    strategy: str | None = None
    steps: int = 8
    device: str = "cpu"
    precision: str = "auto"
    workers: int | None = None
    accelerator: str | None = None
    assume_unseen: bool = False


@dataclass(frozen=True)
class Job:
    """What every stage knows."""

    wish: Wish
    recipe: PairsRecipe
    hypotheses: HypothesesRecipe
    encoding: EncodingSettings

    @property
    def started(self) -> Path:
        """Where an encoder says that it is ready."""
        return progress_folder(self.wish.out) / "started"


def job_of(wish: Wish) -> Job:
    """Looks at checkpoint and pairs before anything is inverted.

    Raises:
        ValueError: they do not belong together, are not whole, hold no texts for a corrector, or the inverter may have
            learnt from those.
    """
    checkpoint, data = wish.checkpoint, wish.data
    if wish.out == data:
        raise ValueError(f"--out {wish.out}: is the folder of --data; choose another one")
    recipe = read_recipe(data)
    require_trusted(recipe.encoder)
    require_finished(data)
    if not any(data.glob("split=correction/*.parquet")):
        raise ValueError(
            f"--data {data}: has no split=correction, whose texts no inverter learns from; encode with "
            "`--set data.correction=0.3`, and train the inverter on those pairs"
        )
    split_files(data, "validation")
    inverter = load_inverter(checkpoint, precision="float32")
    require_same_recipe(recipe, inverter.config.pairs, data, f"the checkpoint {checkpoint}")
    strategy = wish.strategy or inverter.strategies[0]
    try:
        inverter.require(Choices(strategy, wish.steps, SEED))
    except ValueError as error:
        raise ValueError(f"--strategy {strategy} --steps {wish.steps}: {error}") from error
    if not wish.assume_unseen:
        require_unseen(inverter.config.training, checkpoint, data)
    made_by = HypothesesRecipe(
        inverter=inverter.config.name,
        weights=weights_digest(checkpoint),
        strategy=strategy,
        steps=wish.steps,
        seed=SEED,
    )
    return Job(wish, recipe, made_by, EncodingSettings.model_validate({"device": wish.device, **_precision_of(data)}))


def require_unseen(training: dict[str, Any], checkpoint: Path, data: Path) -> None:
    """Refuses a checkpoint that may know the texts for correction.

    Args:
        training: what its config.json says of its training.
        checkpoint: its folder, for the message.
        data: the pairs.

    Raises:
        ValueError: it did not learn from exactly the train split of these pairs.
    """
    pairs = _identity(data, ("train",))
    wanted = {"train_rows": pairs["train.rows"], "train_ids": pairs["train.ids"]}
    if not wanted.keys() <= training.keys():
        why = "does not say which texts its inverter learnt from"
    else:
        differing = [f"{name}: {training[name]} != {wanted[name]}" for name in wanted if training[name] != wanted[name]]
        if not differing:
            return
        why = f"learnt from other texts than the train split of {data} ({'; '.join(differing)})"
    raise ValueError(
        f"--checkpoint {checkpoint}: {why}, so it may have seen those of split=correction; train it on these pairs, or "
        "give --assume-unseen if you know that it has not"
    )


def run_of(job: Job) -> dict[str, Any]:
    """All that decides which hypotheses come out, beside the hardware, and where from.

    Raises:
        ValueError: a file of the pairs cannot be read.
    """
    wish = job.wish
    return {
        "checkpoint": shown(wish.checkpoint),
        "data": shown(wish.data),
        "hypotheses": job.hypotheses.model_dump(mode="json"),
        "pairs": _identity(wish.data, tuple(SPLITS)),
        "precision": wish.precision,
        "assume_unseen": wish.assume_unseen,
    }


def require_same_run(out: Path, run: dict[str, Any]) -> None:
    """Refuses to mix hypotheses of two inverters, two ways to invert, or of other pairs in one folder.

    Raises:
        ValueError: the folder holds something else; the message names the first field that differs.
    """
    earlier = earlier_run(out, "hypotheses", "hypotheses")
    if earlier is not None:
        require_same_settings(out, _only(earlier, COMPARED), _only(run, COMPARED))


def _identity(data: Path, splits: Sequence[str]) -> dict[str, Any]:
    try:
        return identity_of(data, splits)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"--data {data}: cannot be read ({why}); put it back, or make it anew with jobs/encode.py --overwrite"
        ) from error


def _only(run: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: run.get(name, {}) for name in names}


def _precision_of(data: Path) -> dict[str, Any]:
    """How the pairs' own vectors were computed, where that is known: the hypotheses' are to be like them."""
    stats = data / STATS_FILE
    known = loads(stats.read_text(encoding="utf-8")) if stats.is_file() else {}
    return known.get("run", {}).get("encoding", {})
