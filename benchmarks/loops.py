"""The loops that are timed: ours, as a run without Ray and DeepSpeed has it, and the reference's.

`our_rate` and `reference_rate` time them on random pairs that cost what real ones cost; benchmarks/quality.py and
benchmarks/gpu_train.py train real models with the same start.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.pairs import random_pairs
from benchmarks.reference import ReferenceLoop, ReferenceRecipe, train_reference
from embinv.config import load_config
from embinv.data.pairs import Pairs
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.inverter_model import count_parameters
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import MDLMConfig, ModelSettings
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine, prepare
from embinv.training.loop import Progress, RunState, run
from embinv.training.optimizer import build_optimizer
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "minilm.yaml"
MINILM_DIM = 384
MINILM_VOCABULARY = 30_522
EOS, PAD = 0, 1  # of random pairs
BATCHES = 8  # of random pairs
UNDER_WAY = 2.0  # seconds until the clock starts, and one step at least


@dataclass(frozen=True)
class Case:
    """A loop to time; plain values, so that it travels to a process of its own.

    Attributes:
        model: the architecture; the reference takes its widths.
        training: settings of ours; the reference takes batch size, device and seed.
        threads: of the CPU.
        seconds: of timing, after the start.
    """

    model: MDLMConfig
    training: TrainingSettings
    threads: int
    seconds: float

    def pairs(self) -> Pairs:
        """A few batches of random pairs."""
        model, rows = self.model, BATCHES * self.training.texts_per_step
        return random_pairs(rows, model.vocab_size, model.seq_len, model.embedding_dim, (EOS, PAD))

    @property
    def ids(self) -> TokenIds:
        """Those of random pairs."""
        return TokenIds(self.model.mask_id, EOS, PAD)


@dataclass(frozen=True)
class Timed:
    """How fast a loop is, and what it computes.

    Attributes:
        samples_per_second: once it is under way.
        parameters: that are trained.
        precision: float32, or bfloat16-mixed for autocast over float32 weights.
    """

    samples_per_second: float
    parameters: int
    precision: str


def training_settings(overrides: list[str], **changes: Any) -> TrainingSettings:
    """The default config's recipe with `section.key=value` on top, and then with fields of its own.

    Raises:
        ValueError: an override or a field does not validate.
    """
    usual = load_config(CONFIG, overrides).training.model_dump()
    return TrainingSettings.model_validate(usual | changes)


def model_settings(overrides: list[str], size: str) -> ModelSettings:
    """The default config's model with overrides on top, of a named size.

    Raises:
        ValueError: an override does not validate.
    """
    return load_config(CONFIG, [*overrides, f"model.size={size}"]).model


def make_case(
    size: str, vocabulary: int, seq_len: int, overrides: list[str], threads: int, seconds: float, **changes: Any
) -> Case:
    """A loop to time with vectors of all-MiniLM-L6-v2; `changes` are fields of the training settings.

    Raises:
        ValueError: an override or a field does not validate.
    """
    model = model_settings(overrides, size).resolve(vocabulary, MINILM_DIM, seq_len)
    return Case(model, training_settings(overrides, **changes), threads, seconds)


def start_ours(network: MaskedDenoiser, settings: TrainingSettings) -> tuple[LocalEngine, EMA]:
    """A fresh model's engine and its average, on the settings' device and in their precision."""
    network.to(settings.device)  # before the optimizer takes its parameters
    ema = EMA(network, settings.ema_decay, settings.ema_share)  # before the blocks are compiled: it is a copy
    prepare(network, settings)
    engine = LocalEngine(
        network,
        build_optimizer(network, settings),
        settings.gradient_accumulation,
        settings.gradient_clipping,
        settings.device,
        resolve_precision(settings.precision, settings.device),
    )
    return engine, ema


def fresh(model: MDLMConfig, seed: int) -> ConditionalMDLM:
    """A model at its start."""
    torch.manual_seed(seed)
    return ConditionalMDLM(model)


def our_steps(
    engine: LocalEngine, ema: EMA, pairs: Pairs, ids: TokenIds, settings: TrainingSettings
) -> Iterator[tuple[int, float]]:
    """Trains without validating; yields steps made and seconds taken, every now and then."""
    for event in run(engine, ema, pairs, pairs, ids, settings, RunState()):
        if not isinstance(event, Progress):
            return
        yield event.step, event.seconds


def steady_rate(steps: Iterator[tuple[int, float]], batch: int, seconds: float) -> float:
    """Samples a second from a stream of (steps made, seconds taken), once it is under way.

    Raises:
        ValueError: the stream ended before there was anything to time.
    """
    first = last = None
    for step, at in steps:
        if first is None:
            first = (step, at) if at >= UNDER_WAY else None
            continue
        last = (step, at)
        if at - first[1] >= seconds:
            break
    if first is None or last is None:
        raise ValueError("the run was over before it was under way; give it more time")
    return (last[0] - first[0]) * batch / (last[1] - first[1])


def our_rate(case: Case) -> Timed:
    """Times our loop on random pairs."""
    torch.set_num_threads(case.threads)
    settings = endless(case.training)
    network = fresh(case.model, settings.seed)
    engine, ema = start_ours(network, settings)
    steps = our_steps(engine, ema, case.pairs(), case.ids, settings)
    rate = steady_rate(steps, settings.texts_per_step, case.seconds)
    return Timed(rate, count_parameters(network)["total"], resolve_precision(settings.precision, settings.device))


def start_reference(case: Case) -> ReferenceLoop:
    """The reference's loop with the widths, batch, device and seed of ours, and its own recipe for the rest."""
    settings = case.training
    recipe = ReferenceRecipe(batch_size=settings.texts_per_step, seed=settings.seed)
    return ReferenceLoop(case.model, (EOS, PAD), recipe, settings.device)


def reference_rate(case: Case) -> Timed:
    """Times the reference's loop on the same pairs."""
    torch.set_num_threads(case.threads)
    loop = start_reference(case)
    rate = steady_rate(train_reference(loop, case.pairs(), 60.0), loop.recipe.batch_size, case.seconds)
    return Timed(rate, count_parameters(loop.model)["total"], loop.precision)


def endless(settings: TrainingSettings) -> TrainingSettings:
    """The same settings for a run that is broken off: it neither ends nor validates meanwhile."""
    return settings.model_copy(update={"max_steps": 10**9, "minutes": None, "validations": 1})
