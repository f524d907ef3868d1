"""The same training on DeepSpeed's workers and in one plain process: what tests/jobs/test_deepspeed_engine.py compares.

A step's rows, times and masks follow from (seed, step), so one process that takes the parts of all ranks in turn, as
passes of one accumulation, has the gradient that the workers have together.
"""

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing

from embinv.data.pairs import Pairs, batch_rows
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_model
from embinv.models.settings import ModelSettings
from embinv.training.engine import LocalEngine
from embinv.training.objective import OBJECTIVES
from embinv.training.optimizer import build_optimizer
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds, all_or_nan, draw, step_generator, to_tensors
from jobs import deepspeed_engine
from jobs.deepspeed_engine import TAG, DeepSpeedEngine

VOCABULARY, DIM, LENGTH, ROWS = 50, 16, 8, 64
RANKS = (0, 1)
ENDS = (VOCABULARY - 1, VOCABULARY - 2)  # which stand in no text
IDS = TokenIds(VOCABULARY, *ENDS)


@dataclass(frozen=True)
class Case:
    """One short run.

    Attributes:
        settings: for two workers, with accumulation as a worker counts it.
        family: of the model.
        tied_head: whether the head uses the token embedding's weight.
        steps: optimizer steps to make.
        first: the step to begin with.
        no_loss: (step, pass, rank) whose batch has no finite loss.
        no_gradient: (step, pass, rank) whose loss is finite and its gradient is not.
        load: a folder to start from.
        universal: whether it is a universal checkpoint.
        save: a folder to end in.
    """

    settings: TrainingSettings
    family: str = "mdlm"
    tied_head: bool = True
    steps: int = 6
    first: int = 0
    no_loss: frozenset[tuple[int, int, int]] = frozenset()
    no_gradient: frozenset[tuple[int, int, int]] = frozenset()
    load: Path | None = None
    universal: bool = False
    save: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        losses: mean over ranks and passes, one a step.
        norms: gradient norms that the engine gave, one a step.
        moved: whether any weight changed, one a step.
        start: weights at the start.
        end: weights at the end.
    """

    losses: list[float]
    norms: list[float]
    moved: list[bool]
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]


def settings(**changes):
    """Two workers, eight texts a step."""
    usual = {"workers": 2, "batch_size": 8, "optimizer": "adamw", "learning_rate": 3e-3, "precision": "float32"}
    return TrainingSettings.model_validate(usual | changes)


def pairs(corrects):
    """Random texts of a few words, which is quickly learnt, and random vectors; a corrector reads two of each."""
    rng, given = np.random.default_rng(0), 1 + corrects
    token_ids = rng.integers(0, 4, (ROWS, given * LENGTH), dtype=np.int32)
    vectors = rng.normal(size=(ROWS, given * DIM)).astype(np.float16)
    return Pairs(np.arange(ROWS), [""] * ROWS, ["en"] * ROWS, token_ids, vectors)


def model(case):
    """The same start everywhere."""
    torch.manual_seed(0)
    family, _, corrector = case.family.partition("_")
    architecture = ModelSettings(
        family=family, corrector=bool(corrector), size="tiny", pseudo_tokens=2, tied_head=case.tied_head
    )
    return new_model(architecture, Vocabulary.whole(VOCABULARY), DIM, LENGTH, ENDS)


def drive(engine, case, ranks):
    """Makes the steps of the loop (embinv/training/loop.py) with the batches of `ranks`, one after the other."""
    data, passes = pairs("_" in case.family), case.settings.gradient_accumulation
    micro_batch = case.settings.texts_per_step // (len(RANKS) * passes)
    losses, norms, moved = [], [], []
    before = start = snapshot(engine)
    for step in range(case.first, case.first + case.steps):
        sums, norm = [], math.nan
        rows = batch_rows(ROWS, case.settings.texts_per_step, step, case.settings.seed)
        generator = step_generator(case.settings.seed, step, 0)
        draws = draw(case.settings, len(rows), data.token_ids.shape[1], data.embeddings.shape[1], generator)
        for micro, rank in [(micro, rank) for micro in range(passes) for rank in ranks]:
            place, begin = (step, micro, rank), (micro * len(RANKS) + rank) * micro_batch
            mine = slice(begin, begin + micro_batch)
            x_0, embedding = to_tensors(data, rows[mine], engine.device)
            if place in case.no_loss:
                embedding[0, 0] = math.nan
            part = draws.take(mine)
            loss = OBJECTIVES[case.family].loss(engine, x_0, embedding, IDS, case.settings, part).loss
            sums.append(float(loss.detach()))
            engine.backward(loss * math.inf if place in case.no_gradient else all_or_nan(loss))
            norm = engine.step(1.0)
        after = snapshot(engine)
        moved.append(any(not torch.equal(before[name], weight) for name, weight in after.items()))
        [total] = engine.total([sum(sums)])
        losses.append(total / (passes * len(RANKS)))
        norms.append(norm)
        before = after
    return Outcome(losses, norms, moved, start, before)


def snapshot(engine):
    """Whole weights as they are now."""
    return {name: weight.detach().clone() for name, weight in engine.weights()}


def plainly(case, *later):
    """Runs a case in this process, without DeepSpeed, and goes on with (case, ranks) after it; returns the last."""
    made, precision = model(case), "float32" if case.settings.precision == "float32" else "bfloat16-mixed"
    optimizer = build_optimizer(made, case.settings)
    for part, ranks in ((case, RANKS), *later):
        accumulation = len(ranks) * part.settings.gradient_accumulation
        clipping = part.settings.gradient_clipping
        engine = LocalEngine(made, optimizer, accumulation, clipping, precision=precision)
        outcome = drive(engine, part, ranks)
    return outcome


def on_workers(world, cases, folder):
    """Runs cases one after the other in `world` processes of one gloo group; returns [case][rank] outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(_worker, (world, cases, folder), nprocs=world)
    found = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
    return [list(of_case) for of_case in zip(*found, strict=True)]


def ranks_of(world):
    """Whose batches each worker takes: one alone makes a pass of each; of three, two take the same."""
    return {1: [RANKS], 2: [(0,), (1,)], 3: [(0,), (1,), (1,)]}[world]


def _worker(rank, world, cases, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    rendezvous = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group(
        "gloo", rendezvous, rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    deepspeed_engine.deepspeed_config = _without_persistent_weights(deepspeed_engine.deepspeed_config)
    try:
        outcomes = []
        for case in cases:
            ranks = ranks_of(world)[rank]
            adapted = case.settings.model_copy(
                update={
                    "workers": world,
                    "batch_size": case.settings.texts_per_step // len(RANKS) * len(ranks) * world,
                    "gradient_accumulation": case.settings.gradient_accumulation * len(ranks),
                }
            )
            engine = DeepSpeedEngine(model(case), adapted, case.universal)
            if case.load is not None:
                engine.load(case.load, case.universal)
            outcomes.append(drive(engine, case, ranks))
            if case.save is not None:
                engine.save(case.save)
            engine.engine.destroy()
        torch.save(outcomes, folder / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def _without_persistent_weights(config):
    """Stage 3 leaves weights as small as these whole, unless it is told not to."""

    def changed(*arguments):
        tree = config(*arguments)
        if tree["zero_optimization"]["stage"] == 3:
            tree["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return tree

    return changed


def universal(folder, stage, out):
    """Makes `out`/state, which fits any number of workers, of `folder`/state."""
    module = "deepspeed.checkpoint.ds_to_universal"
    places = ["--input_folder", folder / TAG, "--output_folder", out / TAG]
    extra = ["--inject_missing_state"] if stage < 3 else []
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", module, *map(str, places), *extra]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return out
