"""How many vectors a second are inverted, by batch and size, and how much of the time is the model's own arithmetic.

In the precision that an inverter takes on this machine. Models of random weights find no end early, so each text takes
all of its passes: the slowest that a size can be.
"""

import sys
import time
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.processes import in_a_fresh_process
from embinv.decoding.base import DecodingRequest, Denoiser, final_state
from embinv.decoding.strategies import STRATEGIES
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.reduced import ARITHMETIC, inference_precision
from embinv.models.settings import MDLMConfig, ModelSettings

BATCHES = (1, 32, 256)
VOCABULARY, DIM, PASSES = 6_000, 384, 8
SECONDS = 5.0  # of each repeat
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")
ATTENTION = ("aten::_softmax", "aten::_scaled_dot_product_flash_attention_for_cpu")
SHOWN = 8


def measure_speed(sizes: list[str], seq_len: int, threads: int, repeats: int) -> dict[str, Any]:
    """Inversions a second of each size; the last size's share at the largest batch is the figure."""
    found = {size: in_a_fresh_process(speed_of, size, seq_len, threads, repeats) for size in sizes}
    return {
        f"model_share_batch{BATCHES[-1]}": found[sizes[-1]]["model_share"],
        "speed": found,
        "precision": inference_precision("auto", "cpu"),
        "passes": PASSES,
        "vocabulary": VOCABULARY,
        "speed_seq_len": seq_len,
    }


def speed_of(size: str, seq_len: int, threads: int, repeats: int, precision: str = "auto") -> dict[str, Any]:
    """One size, in this process: medians of inversions a second, and the profile of the largest batch."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = ModelSettings.model_validate({"size": size}).resolve(VOCABULARY, DIM, seq_len)
    precision = inference_precision(precision, "cpu")
    model = ARITHMETIC[precision](ConditionalMDLM(config).eval())
    rates = {}
    for batch in BATCHES:
        decode_once(model, config, batch)
        rates[str(batch)] = round(median(_rate(model, config, batch) for _ in range(repeats)), 2)
        print(f"{size}, {precision}, batch {batch}: {rates[str(batch)]} inversions/s", file=sys.stderr, flush=True)
    return {"inversions_per_second": rates, **where_the_time_goes(model, config, BATCHES[-1])}


@torch.inference_mode()
def decode_once(model: Denoiser, config: MDLMConfig, batch: int) -> None:
    """One call of the default decoder, with ends that random weights hardly ever write."""
    embedding = torch.randn(batch, DIM, generator=torch.Generator().manual_seed(batch))
    request = DecodingRequest(embedding, config.seq_len, config.mask_id, PASSES, end_ids=(0, 1))
    final_state(STRATEGIES["confidence"](model, request))


def _rate(model: Denoiser, config: MDLMConfig, batch: int) -> float:
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < SECONDS:
        decode_once(model, config, batch)
        calls += 1
    return calls * batch / (time.perf_counter() - began)


def where_the_time_goes(model: Denoiser, config: MDLMConfig, batch: int) -> dict[str, Any]:
    """Shares of the time of all operators, one by one: the model's products and attention, and the rest by size."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        decode_once(model, config, batch)
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(spent.values())
    own = sum(spent.get(name, 0.0) for name in (*PRODUCTS, *ATTENTION))
    rest = sorted(((name, value) for name, value in spent.items() if name not in (*PRODUCTS, *ATTENTION)), key=_last)
    return {
        "model_share": round(own / total, 3),
        "rest": {name: round(value / total, 3) for name, value in rest[::-1][:SHOWN]},
    }


def _last(pair: tuple[str, float]) -> float:
    return pair[1]


def tables(result: dict[str, Any]) -> str:
    """Inversions a second by batch, and the model's share."""
    lines = [f"| size | {' | '.join(f'batch {b}' for b in BATCHES)} | model's share at {BATCHES[-1]} | the rest |"]
    lines.append(f"|---{'|---' * (len(BATCHES) + 2)}|")
    for size, found in result["speed"].items():
        rates = " | ".join(f"{rate:,.1f}/s" for rate in found["inversions_per_second"].values())
        rest = ", ".join(f"{name.removeprefix('aten::')} {share:.1%}" for name, share in found["rest"].items())
        lines.append(f"| {size} | {rates} | {found['model_share']:.1%} | {rest} |")
    return "\n".join(lines)
