"""How fast a training step is: samples a second, memory, and the share of the machine's arithmetic that is used.

Runs the loop's own step (embinv/training/step.py) on random pairs with `LocalEngine`, so that neither Ray nor
DeepSpeed is needed. The last line is one JSON object.

    python benchmarks/gpu_train.py                                  base size on a GPU, bfloat16
    python benchmarks/gpu_train.py --device cpu --size small --batch 64 --vocab 6000 --precision float32
"""

import argparse
import json
import time

import numpy as np
import torch

from embinv.data.pairs import Pairs, batch_rows
from embinv.models.mdlm import ConditionalMDLM, count_parameters
from embinv.models.settings import ModelSettings
from embinv.training.engine import LocalEngine
from embinv.training.optimizer import build_optimizer
from embinv.training.settings import TrainingSettings
from embinv.training.step import step_generator, to_tensors, training_loss


def random_pairs(rows: int, seq_len: int, dim: int, vocab: int) -> Pairs:
    """Pairs that mean nothing, but cost what real ones cost."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, dim)).astype(np.float16)
    token_ids = rng.integers(0, vocab, (rows, seq_len), dtype=np.int32)
    return Pairs(np.arange(rows), [""] * rows, ["en"] * rows, token_ids, vectors)


def measure(arguments: argparse.Namespace) -> dict[str, float | str]:
    """Times steps after a warm-up; the median of a few repeats."""
    torch.manual_seed(0)
    settings = TrainingSettings(batch_size=arguments.batch, optimizer=arguments.optimizer, device=arguments.device)
    model = ConditionalMDLM(
        ModelSettings(size=arguments.size).resolve(arguments.vocab, arguments.dim, arguments.seq_len)
    )
    engine = LocalEngine(model.to(arguments.device), build_optimizer(model, settings), 1, 1.0, arguments.device)
    pairs = random_pairs(4 * arguments.batch, arguments.seq_len, arguments.dim, arguments.vocab)
    cuda = arguments.device == "cuda"
    mixed = arguments.precision == "bfloat16-mixed"

    def steps(first: int, count: int) -> float:
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        for step in range(first, first + count):
            x_0, embedding = to_tensors(pairs, batch_rows(len(pairs), arguments.batch, step, 0), engine.device)
            with torch.autocast(arguments.device, torch.bfloat16, enabled=mixed):
                loss = training_loss(
                    engine, x_0, embedding, model.config.mask_id, settings.loss_weight, step_generator(0, step, 0)
                )
            engine.backward(loss)
            engine.step(1.0)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    steps(0, arguments.warmup)
    seconds = sorted(steps(arguments.warmup + i * arguments.steps, arguments.steps) for i in range(arguments.repeats))
    median = seconds[len(seconds) // 2]
    counts = count_parameters(model)
    positions = arguments.batch * (arguments.seq_len + model.config.pseudo_tokens)
    body = 6 * counts["non_embedding"] * positions  # an upper bound: modulations run once a text, not once a position
    head = 6 * arguments.vocab * model.config.hidden * arguments.batch * arguments.seq_len / 2  # half is hidden
    return {
        "benchmark": "gpu_train",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        **{
            name: getattr(arguments, name)
            for name in ("size", "batch", "vocab", "seq_len", "dim", "precision", "optimizer")
        },
        "parameters": counts["total"],
        "seconds_per_step": round(median, 5),
        "samples_per_second": round(arguments.batch / median, 1),
        "teraflops_per_second": round((body + head) / median / 1e12, 3),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else -1.0,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="base", choices=("tiny", "small", "base"))
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=151_669, help="default: Qwen3's, untrimmed")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--seq-len", type=int, default=32)
    parser.add_argument("--precision", default="bfloat16-mixed", choices=("float32", "bfloat16-mixed"))
    parser.add_argument("--optimizer", default="muon", choices=("muon", "adamw"))
    parser.add_argument("--warmup", type=int, default=3, help="steps before timing")
    parser.add_argument("--steps", type=int, default=10, help="steps in one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; give --device cpu")
    print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
