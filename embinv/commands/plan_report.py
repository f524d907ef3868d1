"""A plan as lines to read: times and costs, what they are made of, disk and memory, assumptions, warnings."""

from collections.abc import Iterable, Sequence

from embinv.planning.accelerators import Accelerator
from embinv.planning.assumptions import Assumption, Assumptions
from embinv.planning.plan import Plan
from embinv.planning.stage_plan import Part, StagePlan
from embinv.planning.storage import Item

UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def report(plan: Plan, assumptions: Assumptions, gpu: Accelerator | None) -> list[str]:
    """All lines, without the heading."""
    return [
        *_times(plan, "machine-hours" if gpu is None else "GPU-hours"),
        "",
        "what the time is made of",
        *(line for stage in plan.stages for line in _parts(stage)),
        *_items("on disk", plan.storage, plan.stored),
        *_items("on each GPU while training", plan.memory, sum(item.size for item in plan.memory)),
        "",
        "taken for granted, expected (on a good day); change any with --assume NAME=NUMBER",
        *_sheet(gpu),
        *_assumptions(assumptions, plan),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]


def _times(plan: Plan, hours: str) -> list[str]:
    costs = ["cost"] if plan.price is not None else []
    rows = [["", "time", "(good day)", hours, *costs, "limited by"]]
    for stage in plan.stages:
        own = [] if plan.price is None else [f"{stage.cost(plan.price):,.2f}"]
        times = [duration(stage.seconds), f"({duration(stage.good_seconds)})", f"{stage.gpu_hours:,.2f}"]
        rows.append([f"{stage.name} {stage.units:,} {stage.unit}", *times, *own, stage.limit])
    if len(plan.stages) > 1:
        own = [] if plan.cost is None else [f"{plan.cost:,.2f}"]
        times = [duration(plan.seconds), f"({duration(plan.good_seconds)})", f"{plan.gpu_hours:,.2f}"]
        rows.append(["all, one after another", *times, *own, ""])
    return aligned(rows)


def _parts(stage: StagePlan) -> Iterable[str]:
    rows = [_part(stage.name if place == 0 else "", part) for place, part in enumerate(stage.parts)]
    rows += [_part("", part, "alongside: ") for part in stage.alongside]
    yield from (f"  {line}" for line in aligned(rows))
    yield from (f"  {'':<{len(stage.name)}}  {note}" for note in stage.notes)


def _part(name: str, part: Part, before: str = "") -> list[str]:
    return [name, f"{before}{part.name}", duration(part.expected), part.note]


def _items(title: str, items: Sequence[Item], total: float) -> list[str]:
    if not items:
        return []
    rows = [[item.name, size(item.size), item.note] for item in items]
    return ["", title, *(f"  {line}" for line in aligned([*rows, ["all", size(total), ""]]))]


def _sheet(gpu: Accelerator | None) -> list[str]:
    if gpu is None:
        return []
    half = f"{gpu.bfloat16 / 1e12:,.0f} in bfloat16" if gpu.bfloat16 else f"{gpu.float16 / 1e12:,.0f} in float16"
    return [
        f"  {gpu.name}: {half}, {gpu.float32 / 1e12:,.1f} in float32 TFLOP/s, {gpu.memory_bytes / 1e9:,.0f} GB at "
        f"{gpu.memory_bytes_per_second / 1e9:,.0f} GB/s, links {gpu.link_bytes_per_second / 1e9:,.0f} GB/s one way "
        f"({gpu.sheet})"
    ]


def _assumptions(assumptions: Assumptions, plan: Plan) -> list[str]:
    """Those that matter: where all was measured, how a GPU is used does not."""
    worked_out = any(stage.limit != "measured" for stage in plan.stages)
    always = {"tokens_share", "bytes_per_token", "text_ratio", "vector_ratio", "token_bytes", "scaling", "storage_mb"}
    shown = {name: each for name, each in assumptions.items() if worked_out or name in always}
    return [f"  {line}" for line in aligned([[name, _value(each), each.why] for name, each in shown.items()])]


def _value(each: Assumption) -> str:
    good = "" if each.good == each.expected else f" ({each.good:g})"
    return f"{each.expected:g}{good} {each.unit}".strip()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns under one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def size(count: float) -> str:
    """Bytes in a unit that reads well, as in 4.4 GB."""
    unit = next((unit for unit in UNITS if count >= UNITS[unit]), None)
    return f"{count:.0f} B" if unit is None else f"{count / UNITS[unit]:,.1f} {unit}"


def duration(seconds: float) -> str:
    """A time in words: `4.2 s`, `7.5 min`, `3.4 h`, `2.1 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
