"""DeepSpeed on one worker, in a process of its own: sums of equal gradients, and a run on a GPU beside a plain one."""

import os
from dataclasses import replace

import torch
import torch.distributed
import torch.multiprocessing

from embinv.training.engine import LocalEngine
from embinv.training.optimizer import build_optimizer
from embinv.training.step import step_generator, to_tensors, training_loss
from jobs.deepspeed_engine import DeepSpeedEngine
from tests.jobs.deepspeed_cases import IDS, RANKS, Case, drive, model, pairs, settings

TEXTS = 4


def norms(changes, folder):
    """The gradient's norm at the start of training, for each of several changes to the settings.

    Each pass is of the same batch. A power of two of passes divides its gradient exactly, in bfloat16 too, so that
    their sum is that gradient again, unless the sum is rounded.
    """
    return _spawned(_norms, changes, folder)


def on_a_gpu(case, folder):
    """Outcomes of a case with one worker on the GPU, and of a plain process there."""
    both = case.settings.model_copy(update={"workers": 1, "gradient_accumulation": len(RANKS)})
    [found] = _spawned(_train, [(case, both)], folder)
    made = model(case)
    engine = LocalEngine(
        made, build_optimizer(made, both), len(RANKS), both.gradient_clipping, "cuda", precision=both.precision
    )
    return found, _on_the_cpu(drive(engine, case, RANKS))


def _spawned(work, given, folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(_worker, (work, given, folder), nprocs=1)
    return torch.load(folder / "found.pt", weights_only=False)


def _worker(rank, work, given, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    backend = "nccl" if work is _train else "gloo"
    torch.distributed.init_process_group(backend, f"file://{folder / 'rendezvous'}", rank=0, world_size=1)
    torch.save([work(each) for each in given], folder / "found.pt")
    torch.distributed.destroy_process_group()


def _norms(change):
    passes = change["gradient_accumulation"]
    chosen = settings(workers=1, batch_size=TEXTS * passes, **change)
    engine = DeepSpeedEngine(model(Case(chosen)), chosen)
    x_0, embedding = to_tensors(pairs(corrects=False), torch.arange(TEXTS).numpy(), engine.device)
    for _ in range(passes):
        batch = training_loss(engine, x_0, embedding, IDS, chosen, step_generator(0, 0, 0))
        engine.backward(batch.loss)
        norm = engine.step(1.0)
    engine.engine.destroy()
    return norm


def _train(given):
    case, both = given
    torch.cuda.set_device(0)
    return _on_the_cpu(drive(DeepSpeedEngine(model(case), both), case, RANKS))


def _on_the_cpu(outcome):
    ends = {name: {n: weight.cpu() for n, weight in getattr(outcome, name).items()} for name in ("start", "end")}
    return replace(outcome, **ends)
