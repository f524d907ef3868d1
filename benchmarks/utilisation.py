"""How much of the machine's arithmetic a training step uses: its FLOP/s over those of its own largest product.

The optimizer, the average of the weights, the data and all that is no product of matrices count as time and not as
arithmetic.
"""

from statistics import median
from typing import Any

import torch

from benchmarks.loops import Case, endless, fresh, our_steps, start_ours, steady_rate
from embinv.training.flops import flops_per_sample, largest_matmul, measured_peak

PRODUCT_SECONDS = 2.0


def utilisation_of(case: Case, repeats: int) -> dict[str, Any]:
    """Times steps and plain products in turns, in this process; medians of `repeats`."""
    torch.set_num_threads(case.threads)
    settings = endless(case.training)
    batch = settings.texts_per_step
    network = fresh(case.model, settings.seed)
    engine, ema = start_ours(network, settings)
    pairs, flops, shape = case.pairs(), flops_per_sample(network), largest_matmul(network, batch)
    dtype = torch.bfloat16 if engine.mixed else torch.float32

    def plain() -> float:
        return measured_peak(engine.device, dtype, shape, PRODUCT_SECONDS).flops_per_second

    products, steps = [plain()], []
    for _ in range(repeats):
        steps.append(steady_rate(our_steps(engine, ema, pairs, case.ids, settings), batch, case.seconds))
        products.append(plain())
    return {
        "utilisation": round(median(steps) * flops / median(products), 3),
        "teraflops_per_second": round(median(steps) * flops / 1e12, 4),
        "plain_teraflops_per_second": round(median(products) / 1e12, 4),
        "plain_product": "x".join(map(str, shape)),
        "dtype": str(dtype).removeprefix("torch."),
        "gigaflops_a_text": round(flops / 1e9, 3),
        "samples_per_second": round(median(steps), 1),
        "batch": batch,
    }
