"""One training process: reads the pairs, makes the model, goes on from the last saved state, and runs the loop."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import Checkpoint

from embinv.config import Config
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.mdlm import ConditionalMDLM, count_parameters
from embinv.training.ema import EMA
from embinv.training.loop import Progress, RunState, TokenIds, run
from embinv.training.precision import resolve_precision
from jobs.deepspeed_engine import DeepSpeedEngine
from jobs.train_recorder import Recorder
from jobs.train_state import keep, restore


@dataclass(frozen=True)
class Task:
    """What a worker is told; plain values, so that it travels."""

    config: dict[str, Any]
    data: str
    out: str
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
    tokenizer = TextTokenizer(config.tokenizer, trust_remote_code=config.encoder.trust_remote_code)
    training = read_pairs(task.data, "train")
    validation = read_pairs(task.data, "validation").sample(settings.validation_rows, settings.seed)

    vocabulary = _vocabulary(config, recipe, training, tokenizer)
    training, validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)

    torch.manual_seed(settings.seed)  # the same start on every worker
    model = ConditionalMDLM(config.model.resolve(vocabulary.size, recipe.encoder.dim, recipe.seq_len))
    ema = EMA(model, settings.ema_decay, settings.ema_share)
    engine = DeepSpeedEngine(model, settings)
    ema.model.to(engine.device)
    state = RunState()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = restore(Path(folder), engine, ema)
    recorder = None
    if engine.rank == 0:
        recorder = Recorder(Path(task.out), config, recipe, tokenizer, vocabulary, training)
        recorder.forget_after(state.step)
        known = f"{vocabulary.size:,} of {vocabulary.full_size:,} tokens"
        where = f"going on from step {state.step:,}" if state.step else f"{len(training):,} texts to learn from"
        counts = count_parameters(ema.model)
        recorder.say(
            f"{where}; {known}; {counts['total']:,} parameters, {counts['non_embedding']:,} of them not in token "
            f"embedding or head; {engine.world} worker(s), ZeRO-{settings.zero_stage}, {settings.precision}, "
            f"{task.threads} thread(s)"
        )
    eos_id, pad_id = vocabulary.compact(np.asarray([recipe.eos_id, recipe.pad_id])).tolist()
    ids = TokenIds(model.config.mask_id, eos_id, pad_id)
    for event in run(engine, ema, training, validation, ids, settings, state):
        if isinstance(event, Progress):
            if recorder is not None:
                recorder.progress(event)
            continue
        if recorder is not None:
            recorder.validated(event, ema, state)
        with tempfile.TemporaryDirectory() as folder:
            keep(Path(folder), engine, ema, state)
            metrics = {"step": state.step, "seconds": state.seconds, **event.figures.as_row()}
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _vocabulary(config: Config, recipe: PairsRecipe, training: Pairs, tokenizer: TextTokenizer) -> Vocabulary:
    """What the model has to know: the same on every worker, since it follows from the training pairs alone."""
    if not config.model.trim_vocabulary:
        return Vocabulary.whole(recipe.vocab_size)
    always = (recipe.eos_id, recipe.pad_id)
    return Vocabulary.of(training.token_ids, recipe.vocab_size, always, tokenizer.unknown_id)
