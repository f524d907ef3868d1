"""Tables of a plan at ten, a hundred, a thousand times the rows, in Markdown: docs/SCALING.md holds what they say."""

import math

from embinv.planning.encoding import plan_encoding
from embinv.planning.inversion import plan_inversion
from embinv.planning.limits import SCALES, Limit, limits
from embinv.planning.loads import Setting, at_scale
from embinv.planning.storage import corpus_and_pairs
from embinv.planning.training import plan_training, resolved_settings
from embinv.planning.zero import Weights, save_bytes, sent_bytes, state_bytes

UNITS = {"PB": 1e15, "TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
ZERO_STAGES = (0, 1, 2, 3)


def scaling_tables(base: Setting) -> str:
    """All tables, each under its heading."""
    return "\n".join(
        (
            "### Time",
            "",
            times(base),
            "",
            "### What breaks first",
            "",
            breaking(limits(base)),
            "",
            "### What to change, and where",
            "",
            changes(limits(base)),
            "",
            "### ZeRO",
            "",
            zero(base),
            "",
        )
    )


def times(base: Setting) -> str:
    """Rows, GPUs, hours of each stage, and bytes of pairs, by scale."""
    rows = [["", *(f"{scale:,}x" for scale in SCALES)]]
    at = [at_scale(base, scale) for scale in SCALES]
    encode = [plan_encoding(each.load, each.encoder, each.gpu) for each in at]
    train = [plan_training(each.load, each.inverter, each.gpu) for each in at]
    invert = [plan_inversion(each.load, each.inverter, each.gpu) for each in at]
    stored = [
        corpus_and_pairs(
            each.rows,
            each.load.config.data.seq_len,
            each.load.config.encoder.dim,
            each.load.tokens,
            each.load.assumptions,
        )
        for each in at
    ]
    rows.append(["texts", *(f"{each.rows:,}" for each in at)])
    rows.append([f"GPUs ({base.gpu.name})", *(f"{each.load.gpus:,}" for each in at)])
    for name, plans in (("encode", encode), ("train, as many epochs", train), ("invert as many vectors", invert)):
        rows.append([f"{name}, hours", *(f"{plan.seconds / 3600:,.2f}" for plan in plans)])
    rows.append(
        ["GPU-hours", *(f"{sum(p.gpu_hours for p in each):,.0f}" for each in zip(encode, train, invert, strict=True))]
    )
    rows.append(["pairs on disk", *(amount(items[1].size, "bytes") for items in stored)])
    return markdown(rows)


def breaking(found: list[Limit]) -> str:
    """Each load and its bound by scale; bold where it is above."""
    rows = [["load", "bound", *(f"{scale:,}x" for scale in SCALES), "breaks at"]]
    for limit in found:
        cells = [
            f"**{amount(load, limit.unit)}**" if load > bound else amount(load, limit.unit)
            for load, bound in zip(limit.loads, limit.bounds, strict=True)
        ]
        bounds = sorted({amount(bound, limit.unit) for bound in limit.bounds}, key=len)
        bound = bounds[0] if len(bounds) == 1 else f"{amount(limit.bounds[0], limit.unit)}, more with nodes"
        rows.append([limit.name, bound, *cells, _scale(limit.breaks_at)])
    return markdown(rows)


def changes(found: list[Limit]) -> str:
    """Where each load comes from, and what would lower it."""
    rows = [["load", "where", "what to change"], *([limit.name, limit.place, limit.change] for limit in found)]
    return markdown(rows)


def zero(base: Setting) -> str:
    """Bytes of a worker and of a step by ZeRO stage, with AdamW, since Muon needs stage 0."""
    rows = [["stage", "state of a GPU", "sent by a GPU in a step", "a save"]]
    plain = resolved_settings(base.load, base.gpu)
    for stage in ZERO_STAGES:
        settings = plain.model_copy(update={"zero_stage": stage, "optimizer": "adamw"})
        weights, gpus = Weights(base.inverter.parameters), base.load.gpus
        figures = (
            state_bytes(weights, settings, gpus).total,
            sent_bytes(weights, settings, gpus),
            save_bytes(weights, settings),
        )
        rows.append([str(stage), *(amount(figure, "bytes") for figure in figures)])
    return markdown(rows)


def _scale(breaks_at: float | None) -> str:
    if breaks_at is None:
        return "-"
    if breaks_at <= 1:
        return "1x"
    return f"{round(breaks_at, 1 - math.floor(math.log10(breaks_at))):,g}x"  # two digits


def amount(value: float, unit: str) -> str:
    """A load as a person reads it."""
    if unit == "bytes":
        name = next((name for name in UNITS if value >= UNITS[name]), None)
        return f"{value:.0f} B" if name is None else f"{value / UNITS[name]:.3g} {name}"
    if unit == "seconds":
        name, length = next(((n, x) for n, x in (("h", 3600), ("min", 60)) if value >= x), ("s", 1))
        return f"{value / length:.3g} {name}"
    if unit == "share":
        return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = rows
    lines = ["| " + " | ".join(row) + " |" for row in body]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
