"""How much of the machine's arithmetic a training step uses: its FLOP/s over those of its own largest product.

The optimizer, the average of the weights, the data and all that is no product of matrices count as time and not as
arithmetic.
"""

from statistics import median
from typing import Any

import torch

from benchmarks.loops import Case, endless, fresh, our_steps, start_ours, steady_rate
from embinv.models.inverter_model import count_parameters
from embinv.training.flops import Peak, flops_per_sample, largest_matmul, measured_peak
from embinv.training.precision import resolve_precision

PRODUCT_SECONDS = 2.0


def utilisation_of(case: Case, repeats: int) -> dict[str, Any]:
    """Times steps and plain products in turns, in this process; medians of `repeats`."""
    torch.set_num_threads(case.threads)
    settings = endless(case.training)
    batch = settings.texts_per_step
    network = fresh(case.model, settings.seed)
    engine, ema = start_ours(network, settings)
    texts = batch // settings.gradient_accumulation  # of a pass
    pairs, flops, shape = case.pairs(), flops_per_sample(network), largest_matmul(network, texts)
    precision = resolve_precision(settings.precision, settings.device)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16

    def plain() -> Peak:
        return measured_peak(engine.device, dtype, shape, PRODUCT_SECONDS)

    products, steps = [plain()], []
    for _ in range(repeats):
        steps.append(steady_rate(our_steps(engine, ema, pairs, case.ids, settings), batch, case.seconds))
        products.append(plain())
    product = median(peak.flops_per_second for peak in products)
    return {
        "utilisation": round(median(steps) * flops / product, 3),
        "teraflops_per_second": round(median(steps) * flops / 1e12, 4),
        "plain_teraflops_per_second": round(product / 1e12, 4),
        "plain_product": products[-1].source,
        "precision": precision,
        "parameters": count_parameters(network)["total"],
        "gigaflops_a_text": round(flops / 1e9, 3),
        "samples_per_second": round(median(steps), 1),
        "batch": batch,
        "passes": settings.gradient_accumulation,
    }
