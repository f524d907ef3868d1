"""A short timed trial of the config's own encoder and inverter on this machine, in this process.

Each stage is timed at two sizes, so that what it takes once is told apart from what each unit takes. Texts are
synthetic records, joined until they are as long as the plan says; pairs and vectors are random, and the inverter is
new: it costs what a trained one costs, and says nothing. What Ray and its workers add is not in it; the records of
real runs (`embinv.planning.runs`) have it. Nor is anything saved: what a save takes is worked out from its bytes.

Shapes: N texts, B of a step, L length, D embedding, V vocabulary.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.pairs import Pairs
from embinv.data.records import generate_records
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.base import open_encoder
from embinv.inverter import load_inverter
from embinv.models.build import new_model
from embinv.planning.accelerators import accelerator_of
from embinv.planning.inverter_size import inverter_size
from embinv.planning.runs import settings_of
from embinv.planning.throughput import Point, Throughput, fit
from embinv.planning.training import save_part
from embinv.planning.workload import Workload
from embinv.spaces.moments import moments_of
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine, prepare
from embinv.training.loop import Progress, RunState, run
from embinv.training.objective import OBJECTIVES
from embinv.training.optimizer import build_optimizer
from embinv.training.precision import resolve_precision
from embinv.training.step import TokenIds

FEW, MORE = 1, 4  # one size over the other
CHARS_PER_TOKEN = 4


def probe(load: Workload, stages: tuple[str, ...], device: str, gpu: str, seconds: float) -> list[Throughput]:
    """Times some stages.

    Args:
        load: what is planned.
        stages: of STAGES.
        device: cpu or cuda.
        gpu: its name in the plan.
        seconds: roughly, that each stage may take.

    Raises:
        ValueError: there is no such device or it is another GPU, or an encoder or tokenizer cannot be loaded.
    """
    if device == "cuda":
        _require_this(gpu)
    timers = {"encode": time_encoding, "train": time_training, "invert": time_inversion}
    found = []
    for stage in stages:
        timed = timers[stage](load, device, seconds)
        settings = settings_of(stage, load.config.model_dump(mode="json"))
        if stage == "train":
            settings["training.batch_size"] = load.batch
        elif stage == "invert":
            settings["passes"] = load.passes
        what = f"trial of {timed.what}"
        found.append(Throughput(stage, timed.fixed, timed.per_unit, 1, gpu, what, timed.per_validation, settings))
    return found


def _require_this(gpu: str) -> None:
    """Refuses to measure on another GPU than the plan's."""
    if not torch.cuda.is_available():
        raise ValueError(f"--measure: this machine has no CUDA device to measure {gpu} on; give --gpu cpu, or --from")
    device, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    here = accelerator_of(device, memory)
    if here is None or here.name != gpu.lower():
        instead = "" if here is None else f"--gpu {here.name}, or "
        raise ValueError(
            f"--measure: this machine has a {device} of {memory / 2**30:.0f} GiB, and --gpu is {gpu}; give {instead}"
            "leave --measure out, and the plan is worked out from the data sheet"
        )


@dataclass(frozen=True)
class Timed:
    """What a trial took: seconds once, and for each unit, and for each validation; and what it was a trial of."""

    fixed: float
    per_unit: float
    what: str
    per_validation: float = 0.0


def time_encoding(load: Workload, device: str, seconds: float) -> Timed:
    """The config's encoder, by texts."""
    began = time.perf_counter()
    encoder = open_encoder(load.config.encoder, device, load.config.encoding)
    loaded = time.perf_counter() - began
    texts = records_of(max(64, 2 * CHARS_PER_TOKEN * 4), load.tokens)
    encoder.encode(texts[:64])  # the first pass is slower than those that follow
    points = timed_twice(lambda size: encoder.encode(_repeated(texts, size)), 64, seconds)
    fixed, per_unit = fit(points)
    return Timed(loaded + fixed, per_unit, _sizes(points, "texts"))


def time_training(load: Workload, device: str, seconds: float) -> Timed:
    """The config's inverter in one plain process, by texts of steps, and one validation of it."""
    config = load.config
    batch = load.batch
    settings = config.training.model_copy(
        update={
            "device": device,
            "precision": resolve_precision(config.training.precision, device),
            "batch_size": batch,
            "minutes": None,
            "max_steps": 10**9,
            "workers": 1,
            "zero_stage": 0,
        }
    )
    save = save_part(load, inverter_size(config, load.vocabulary), settings)
    began = time.perf_counter()
    vocabulary = Vocabulary.whole(load.vocabulary)
    dim, length = config.encoder.dim, config.data.seq_len
    model = new_model(config.model, vocabulary, dim, length, (1, 0))
    average = EMA(model, settings.ema_decay, settings.ema_share)
    prepare(model, settings)
    engine = LocalEngine(
        model,
        build_optimizer(model, settings),
        settings.gradient_accumulation,
        settings.gradient_clipping,
        device,
        settings.precision,
    )
    average.model.to(engine.device)
    pairs = random_pairs(2 * batch, load.vocabulary, length, dim)
    ids = TokenIds(model.config.mask_id, 1, 0, None)
    made = time.perf_counter() - began
    state, rates = RunState(), []
    began = time.perf_counter()
    for event in run(engine, average, pairs, pairs, ids, settings, state):
        assert isinstance(event, Progress), "a validation comes at the end, and there is none"
        rates.append(event.samples_per_second)
        if time.perf_counter() - began > seconds and len(rates) > 1:
            break
    held_out = random_pairs(settings.validation_rows, load.vocabulary, length, dim)
    validate = OBJECTIVES[model.config.family].validate
    validating = _timed(lambda _: validate(average.model, held_out, ids, settings.validation_steps, engine), 1)
    what = (
        f"{state.step} steps of {batch} texts and a validation; saves are not measured, but worked out: {save.note} "
        f"at storage_mb, {save.expected:.1f} s"
    )
    return Timed(made, 1 / float(np.median(rates[1:])), what, validating + save.expected)


def time_inversion(load: Workload, device: str, seconds: float) -> Timed:
    """A new inverter of the config's size, by vectors."""
    config = load.config
    tokenizer = config.open_tokenizer()
    recipe = config.pairs_recipe(tokenizer)
    size = min(load.vocabulary, tokenizer.vocab_size)
    ends = (recipe.eos_id, recipe.pad_id)
    kept = np.union1d(np.arange(size - len(ends)), ends) if size < tokenizer.vocab_size else np.arange(size)
    vocabulary = Vocabulary(kept, tokenizer.vocab_size, tokenizer.unknown_id)
    model = new_model(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, vocabulary.ends(*ends))
    vectors = random_directions(256, recipe.encoder.dim)
    described = CheckpointConfig(
        name=config.name,
        model=model.config,
        pairs=recipe,
        training={"steps": 0},
        statistics=moments_of(vectors).statistics(),
    )
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "checkpoint", model, described, tokenizer, vocabulary)
        inverter = load_inverter(Path(folder) / "checkpoint", device)
    loaded = time.perf_counter() - began
    inverter.invert(vectors[:16], steps=load.passes)
    points = timed_twice(
        lambda size: inverter.invert(np.resize(vectors, (size, recipe.encoder.dim)), steps=load.passes), 16, seconds
    )
    fixed, per_unit = fit(points)
    return Timed(loaded + fixed, per_unit, _sizes(points, "vectors"))


def timed_twice(work: Callable[[int], object], smallest: int, seconds: float) -> list[Point]:
    """Two sizes, the larger about as large as can be done in `seconds` with the smaller; each at its quicker of two.

    Args:
        work: does so many units.
        smallest: units to begin with; they are doubled until they take a twentieth of `seconds`.
        seconds: roughly, for all of it.
    """
    size, took = smallest, _timed(work, smallest)
    while took < seconds / 20:
        size, took = 2 * size, _timed(work, 2 * size)
    few = min(took, _timed(work, size))
    large = max(MORE, int(seconds * 0.35 / few)) * size if few < seconds / 10 else 2 * size
    return [(FEW * size, few), (large, min(_timed(work, large), _timed(work, large)))]


def _timed(work: Callable[[int], object], size: int) -> float:
    began = time.perf_counter()
    work(size)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def records_of(number: int, tokens: float) -> list[str]:
    """Synthetic records, joined to texts of about so many tokens each."""
    wanted = max(1.0, tokens * CHARS_PER_TOKEN)
    texts, current = [], ""
    for block in count():
        for record in generate_records("en", block, 0):
            current = f"{current} {record.text}".strip()
            if len(current) >= wanted:
                texts.append(current[: round(wanted)])
                current = ""
                if len(texts) == number:
                    return texts
    raise AssertionError("records never end")


def random_pairs(rows: int, vocabulary: int, seq_len: int, dim: int) -> Pairs:
    """Pairs [N] that mean nothing; their ids are of a model whose PAD is 0 and EOS 1."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, vocabulary, (rows, seq_len), dtype=np.int32)
    ids[:, -1] = 1
    return Pairs(np.arange(rows), [""] * rows, ["en"] * rows, ids, random_directions(rows, dim).astype(np.float16))


def random_directions(rows: int, dim: int) -> np.ndarray:
    """[N, D] float32 of length 1."""
    vectors = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _repeated(texts: list[str], size: int) -> list[str]:
    return (texts * -(-size // len(texts)))[:size]


def _sizes(points: list[Point], unit: str) -> str:
    return f"{' and '.join(f'{units:,.0f}' for units, _ in points)} {unit}"
