"""One training process: reads the pairs, makes the model, goes on from the last whole save, and runs the loop."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.collective import barrier, broadcast_from_rank_zero

from embinv.config import Config
from embinv.data.corrections import read_corrections
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_model
from embinv.models.inverter_model import count_parameters
from embinv.models.warm_start import corrector_of
from embinv.training.ema import EMA
from embinv.training.loop import Progress, RunState, Validated, run
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds
from jobs.arguments import RunStopped
from jobs.batch_size import resolved
from jobs.deepspeed_engine import DeepSpeedEngine
from jobs.train_identity import train_texts
from jobs.train_recorder import Recorder
from jobs.train_start import inverter_to_begin_as
from jobs.train_state import (
    SAVING,
    Saved,
    complete,
    hand_in,
    keep,
    newest_whole,
    read_saved,
    restore,
    save_name,
)
from jobs.train_universal import UNIVERSAL, forget_universal, make_universal
from jobs.train_verdict import FAILURES_FILE, note_failure


@dataclass(frozen=True)
class Task:
    """What a worker is told; plain values, so that it travels."""

    config: dict[str, Any]
    data: str
    out: str
    storage: str  # where the run's state lies; all workers see it


def train_worker(task: dict[str, Any]) -> None:
    """Runs on every worker; what it fails of is told to Ray, which keeps no traceback, and noted in a file."""
    told = Task(**task)
    try:
        _train(told)
    except Exception as error:
        with suppress(OSError):  # the disk may be what it failed of
            note_failure(Path(told.out) / FAILURES_FILE, torch.distributed.get_rank(), error)
        raise


def _train(task: Task) -> None:
    config = Config.model_validate(task.config)
    settings = config.training
    torch.set_num_threads(settings.threads or _threads(settings.device))
    recipe = read_recipe(task.data)
    tokenizer = config.open_tokenizer()
    training = _rows(config, task.data, "train")
    validation = _rows(config, task.data, "validation").sample(settings.validation_rows, settings.seed)

    begin = None if config.model.inverter is None else inverter_to_begin_as(config, recipe)
    vocabulary = _vocabulary(config, recipe, training, tokenizer) if begin is None else begin.vocabulary
    training, validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)

    torch.manual_seed(settings.seed)  # the same start on every worker
    tokenizer_hash = recipe.tokenizer_hash
    ends = vocabulary.ends(recipe.eos_id, recipe.pad_id)
    if begin is None:
        model = new_model(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, ends, tokenizer_hash)
    else:
        model, begin = corrector_of(begin.model, config.model.dropout), None
    ema = EMA(model, settings.ema_decay, settings.ema_share)

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    saved, universal, told = _where_to_go_on(Path(task.storage), rank, world, settings.device)
    settings = with_one_precision(settings, saved)
    settings = resolved(settings, model, len(training)) if saved is None else _same_batch(settings, saved)
    engine = DeepSpeedEngine(model, settings, universal is not None)
    ema.model.to(engine.device)
    state = RunState()
    if saved is not None:
        state = restore(saved, engine, ema, universal)
        barrier()  # all have read it
    recorder = None
    if rank == 0:
        forget_universal(Path(task.storage))
        config = config.model_copy(update={"training": settings})
        average, finite = ema.model, _finite(training)
        recorder = Recorder(
            Path(task.out),
            config,
            recipe,
            tokenizer,
            vocabulary,
            finite,
            validation,
            average,
            engine,
            state.step,
            train_texts(training.ids),
        )
        if len(finite) < len(training):
            told.append(f"{len(training) - len(finite):,} of the vectors are not finite; their steps are skipped")
        begins = _introduction(state, saved, engine, ema, training, vocabulary)
        for sentence in (*told, begins, recorder.yardstick):
            recorder.say(sentence)
    ids = TokenIds(model.config.mask_id, *ends, vocabulary.other_id)
    events = run(engine, ema, training, validation, ids, settings, state)
    try:
        record(events, recorder, ema, state, lambda: _save(Path(task.storage), engine, ema, state))
    except ValueError as error:
        if state.skipped_in_a_row < settings.max_skipped:
            raise
        kept = f"{task.out}/checkpoint and {task.out}/last are from before and can be used"
        raise RunStopped(f"{error}; {kept}" if state.validations else str(error)) from error


def record(
    events: Iterable[Progress | Validated],
    recorder: Recorder | None,
    ema: EMA,
    state: RunState,
    save: Callable[[], None],
) -> None:
    """Notes what happens until nothing more does, which is at once where the run was finished before.

    Args:
        events: of the loop.
        recorder: rank 0's.
        ema: what is validated.
        state: of the run.
        save: keeps the run's state; every worker must call it at each validation.

    Raises:
        ValueError: the loop's; the recorder is closed then too.
    """
    try:
        for event in events:
            if isinstance(event, Validated):
                if recorder is not None:
                    recorder.validated(event, ema, state)
                save()
            elif recorder is not None:
                recorder.progress(event)
    except ValueError:
        if recorder is not None:
            recorder.close(finished=False)
        raise
    if recorder is not None:
        recorder.close(finished=True)


def with_one_precision(settings: TrainingSettings, saved: Saved | None) -> TrainingSettings:
    """The settings with what `precision: auto` means for the whole run: what rank 0 decided at its beginning.

    Every worker must call it.

    Args:
        settings: the config's.
        saved: what the run goes on from.

    Raises:
        ValueError: the run's bfloat16 would be emulated here, several times slower.
    """
    if settings.precision != "auto":
        return settings
    here = resolve_precision("auto", settings.device)
    decided = broadcast_from_rank_zero(here) if saved is None else saved.precision
    if decided != "float32" and here == "float32":
        raise ValueError(
            f"this run is in {decided} (training.precision auto, as its first worker found it), which a machine here "
            "does not multiply in; run it on machines that do, or set training.precision float32 and choose another "
            "--out"
        )
    return settings.model_copy(update={"precision": decided})


def _threads(device: str) -> int:
    """A worker's share of its node's cores; on a GPU there is little for them to do."""
    if device == "cuda":
        return 1
    return max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size())


def _introduction(
    state: RunState,
    saved: Saved | None,
    engine: DeepSpeedEngine,
    ema: EMA,
    training: Pairs,
    vocabulary: Vocabulary,
) -> str:
    """The first line of a sitting: where the run stands, and on what it is computed."""
    where = f"going on from step {state.step:,}" if state.step else f"{len(training):,} texts to learn from"
    if saved is not None and saved.world != engine.world:
        where += f", with {engine.world} worker(s) after {saved.world}"
    counts = count_parameters(ema.model)
    return (
        f"{where}; {vocabulary.size:,} of {vocabulary.full_size:,} tokens; {counts['total']:,} parameters, "
        f"{counts['non_embedding']:,} of them not in token embedding or head; {engine.world} worker(s), "
        f"ZeRO-{engine.settings.zero_stage}, {engine.settings.precision}, {torch.get_num_threads()} thread(s)"
    )


def _save(storage: Path, engine: DeepSpeedEngine, ema: EMA, state: RunState) -> None:
    """Every worker writes its share beside the saves, on their disk, and moves it into the one of all."""
    name = broadcast_from_rank_zero(save_name(state.step))
    with tempfile.TemporaryDirectory(dir=storage, prefix=SAVING, ignore_cleanup_errors=True) as share:
        keep(Path(share), engine, ema, state)
        hand_in(Path(share), storage, name)
    barrier()
    if engine.rank == 0:
        complete(storage, name)


def _where_to_go_on(storage: Path, rank: int, world: int, device: str) -> tuple[Saved | None, Path | None, list[str]]:
    """Rank 0 looks and decides for all: the save, the universal checkpoint made of it if it takes one, what to tell."""
    found: tuple[str, bool] | None = None
    told: list[str] = []
    if rank == 0:
        saved, told = newest_whole(storage)
        if saved is not None:
            other_world = saved.partitioned and saved.world != world
            found = (saved.folder.name, other_world)
            if other_world:
                make_universal(saved.folder, storage, device)
    found = broadcast_from_rank_zero(found)
    if found is None:
        return None, None, told
    name, other_world = found
    return read_saved(storage / name), storage / UNIVERSAL if other_world else None, told


def _same_batch(settings: TrainingSettings, saved: Saved) -> TrainingSettings:
    """The settings with the batch of the run so far, which may have been found by trial."""
    per_pass = settings.workers * settings.gradient_accumulation
    if saved.batch_size % per_pass:
        raise ValueError(
            f"this run takes {saved.batch_size} texts a step, which must be a multiple of training.workers x "
            f"training.gradient_accumulation ({per_pass}); set those so"
        )
    return settings.model_copy(update={"batch_size": saved.batch_size})


def _finite(pairs: Pairs) -> Pairs:
    """Without the rows whose vector [D] has a number that is none; the rows themselves if there are no such."""
    whole = np.isfinite(pairs.embeddings).all(axis=1)
    return pairs if whole.all() else pairs.take(np.flatnonzero(whole))


def _rows(config: Config, data: str, split: str) -> Pairs:
    """What the model learns from: pairs; of a corrector, with a hypothesis beside each."""
    return read_corrections(data, split).joined() if config.model.corrector else read_pairs(data, split)


def _vocabulary(config: Config, recipe: PairsRecipe, training: Pairs, tokenizer: TextTokenizer) -> Vocabulary:
    """What the model has to know: the same on every worker, since it follows from the training pairs alone."""
    if not config.model.trim_vocabulary:
        return Vocabulary.whole(recipe.vocab_size)
    always = (recipe.eos_id, recipe.pad_id)
    return Vocabulary.of(training.token_ids, recipe.vocab_size, always, tokenizer.unknown_id)
