"""One training process: reads the pairs, makes the model, goes on from the last whole save, and runs the loop."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import Checkpoint
from ray.train.collective import barrier, broadcast_from_rank_zero

from embinv.config import Config
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_denoiser
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.mdlm import count_parameters
from embinv.training.ema import EMA
from embinv.training.loop import RunState, TokenIds, Validated, run
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from jobs.arguments import RunStopped
from jobs.batch_size import resolved
from jobs.deepspeed_engine import DeepSpeedEngine
from jobs.train_recorder import Recorder
from jobs.train_state import Saved, complete, keep, newest_whole, read_saved, restore, save_name
from jobs.train_universal import UNIVERSAL, forget_universal, make_universal


@dataclass(frozen=True)
class Task:
    """What a worker is told; plain values, so that it travels."""

    config: dict[str, Any]
    data: str
    out: str
    storage: str  # where the run's state lies; all workers see it
    threads: int


def train_worker(task: dict[str, Any]) -> None:
    """Runs on every worker."""
    _train(Task(**task))


def _train(task: Task) -> None:
    torch.set_num_threads(task.threads)
    config = Config.model_validate(task.config)
    precision = resolve_precision(config.training.precision, config.training.device)
    settings = config.training.model_copy(update={"precision": precision})
    recipe = read_recipe(task.data)
    tokenizer = config.open_tokenizer()
    training = read_pairs(task.data, "train")
    validation = read_pairs(task.data, "validation").sample(settings.validation_rows, settings.seed)

    vocabulary = _vocabulary(config, recipe, training, tokenizer)
    training, validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)

    torch.manual_seed(settings.seed)  # the same start on every worker
    tokenizer_hash = recipe.tokenizer_hash
    model = new_denoiser(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, tokenizer_hash)
    ema = EMA(model, settings.ema_decay, settings.ema_share)

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    saved, universal, told = _where_to_go_on(Path(task.storage), rank, world, settings.device)
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
        assert isinstance(average, MaskedDenoiser)
        recorder = Recorder(
            Path(task.out), config, recipe, tokenizer, vocabulary, finite, validation, average, engine, state.step
        )
        if len(finite) < len(training):
            told.append(f"{len(training) - len(finite):,} of the vectors are not finite; their steps are skipped")
        begins = _introduction(state, saved, engine, ema, training, vocabulary, task)
        for sentence in (*told, begins, recorder.yardstick):
            recorder.say(sentence)
    eos_id, pad_id = vocabulary.compact(np.asarray([recipe.eos_id, recipe.pad_id])).tolist()
    ids = TokenIds(model.config.mask_id, eos_id, pad_id)
    try:
        for event in run(engine, ema, training, validation, ids, settings, state):
            if isinstance(event, Validated):
                if recorder is not None:
                    recorder.validated(event, ema, state)
                _save(Path(task.storage), engine, ema, state, event)
            elif recorder is not None:
                recorder.progress(event)
    except ValueError as error:
        if recorder is not None:
            recorder.close(finished=False)
        if state.skipped_in_a_row < settings.max_skipped:
            raise
        kept = f"{task.out}/checkpoint and {task.out}/last are from before and can be used"
        raise RunStopped(f"{error}; {kept}" if state.validations else str(error)) from error


def _introduction(
    state: RunState,
    saved: Saved | None,
    engine: DeepSpeedEngine,
    ema: EMA,
    training: Pairs,
    vocabulary: Vocabulary,
    task: Task,
) -> str:
    """The first line of a sitting: where the run stands, and on what it is computed."""
    where = f"going on from step {state.step:,}" if state.step else f"{len(training):,} texts to learn from"
    if saved is not None and saved.world != engine.world:
        where += f", with {engine.world} worker(s) after {saved.world}"
    counts = count_parameters(ema.model)
    return (
        f"{where}; {vocabulary.size:,} of {vocabulary.full_size:,} tokens; {counts['total']:,} parameters, "
        f"{counts['non_embedding']:,} of them not in token embedding or head; {engine.world} worker(s), "
        f"ZeRO-{engine.settings.zero_stage}, {engine.settings.precision}, {task.threads} thread(s)"
    )


def _save(storage: Path, engine: DeepSpeedEngine, ema: EMA, state: RunState, event: Validated) -> None:
    """Every worker writes its share; Ray Train puts them into one folder."""
    name = save_name(state.step)
    with tempfile.TemporaryDirectory() as folder:
        keep(Path(folder), engine, ema, state)
        metrics = {"step": state.step, "seconds": state.seconds, **event.figures.as_row()}
        ray.train.report(metrics, Checkpoint.from_directory(folder), checkpoint_dir_name=name)  # rank 0's name
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


def _vocabulary(config: Config, recipe: PairsRecipe, training: Pairs, tokenizer: TextTokenizer) -> Vocabulary:
    """What the model has to know: the same on every worker, since it follows from the training pairs alone."""
    if not config.model.trim_vocabulary:
        return Vocabulary.whole(recipe.vocab_size)
    always = (recipe.eos_id, recipe.pad_id)
    return Vocabulary.of(training.token_ids, recipe.vocab_size, always, tokenizer.unknown_id)
