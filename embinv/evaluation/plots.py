"""The plots of report.html, from the values of report.json. Nothing is measured here.

They are drawn as `embinv.evaluation.drawing` says. Series differ in marker and line too, not in colour alone. What the
report does not have is not drawn: neither a point without its value nor a plot without points.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log2, nan
from typing import TYPE_CHECKING, Any

from embinv.evaluation.drawing import LINES, MARKERS, MUTED, SERIES, Plot, canvas, drawing_style, shares
from embinv.evaluation.markup import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

KINDS = {"token": "tokens", "text": "texts"}
MANY = 24  # points on a line, from which markers are small
CROWDED = 14  # ticks that an axis has room for


def plots(report: Mapping[str, Any]) -> dict[str, Plot]:
    """Every plot that the report has data for.

    Args:
        report: of report.json; of it sweep, reliability, by_position, languages, by_length and milestones are drawn,
            each of which may be missing.

    Returns:
        Those of `passes`, `milliseconds`, `reliability`, `position`, `language`, `length` and `milestones` that there
        are, in this order.
    """
    sweep = _known(report.get("sweep"), "strategy", "passes")
    curves = {kind: rows for kind in KINDS if (rows := (report.get("reliability") or {}).get(kind))}
    languages = [{"lang": lang, **row} for lang, row in (report.get("languages") or {}).items()]
    data = {
        "passes": (_quality_by_passes, sweep),
        "milliseconds": (_quality_by_time, [row for row in _known(sweep, "milliseconds") if row["milliseconds"] > 0]),
        "reliability": (_reliability, curves),
        "position": (partial(_counted, "position", "place in the text"), _known(report.get("by_position"), "position")),
        "language": (_by_language, _known(languages) if len(languages) > 1 else []),
        "length": (_by_length, _known(report.get("by_length"), "shortest", "longest")),
        "milestones": (partial(_counted, "step", "step of training"), _known(report.get("milestones"), "step")),
    }
    with drawing_style():
        return {name: draw(rows) for name, (draw, rows) in data.items() if rows}


def _known(rows: Rows | None, *names: str) -> list[Mapping[str, Any]]:
    """The rows that have a token accuracy and a value for each name."""
    return [row for row in rows or () if all(row.get(name) is not None for name in (*names, "token_accuracy"))]


def _points(axes: "Axes", at: Sequence[float], rows: Rows, number: int = 0, upright: bool = True, **look: Any) -> None:
    """Token accuracies with their standard errors, where these are known, as the series of a number."""
    values = [row["token_accuracy"] for row in rows]
    errors = [nan if row.get("token_accuracy_se") is None else row["token_accuracy_se"] for row in rows]
    x, y = (at, values) if upright else (values, at)
    look = {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
        "markersize": 4.5 if len(rows) < MANY else 3,
        "capsize": 3 if len(rows) < MANY else 0,
        "linewidth": 1.6,
        "elinewidth": 1.2,
    } | look
    drawn = axes.errorbar(x, y, **{"yerr" if upright else "xerr": errors}, **look)
    drawn[0].set_clip_on(False)  # a point at 0 or 100% is shown whole


def _told(points: Sequence[tuple[str, float]]) -> str:
    """The first and the last of (where, share), in words."""
    (start, first), (end, last) = points[0], points[-1]
    return f"{first:.1%} at {start}" + (f", {last:.1%} at {end}" if len(points) > 1 else "")


def _sweep(rows: Rows, name: str, amount: str) -> tuple["Figure", "Axes", str]:
    """A line for each strategy through its numbers of passes, over the column of a name."""
    figure = canvas()
    axes, told = figure.add_subplot(), []
    for number, strategy in enumerate(dict.fromkeys(row["strategy"] for row in rows)):
        mine = sorted((row for row in rows if row["strategy"] == strategy), key=lambda row: row["passes"])
        _points(axes, [row[name] for row in mine], mine, number, label=printable(strategy))
        told.append(f"{strategy}: {_told([(amount.format(row[name]), row['token_accuracy']) for row in mine])}")
    shares(axes.yaxis)
    axes.set_ylabel("tokens right")
    figure.legend(loc="outside upper left", ncols=2)
    return figure, axes, "; ".join(told)


def _quality_by_passes(rows: Rows) -> Plot:
    """Over the number of passes, doublings equally wide."""
    figure, axes, told = _sweep(rows, "passes", "{:g}")
    values = sorted({row["passes"] for row in rows})
    ticks, span = values[:1], max(log2(values[-1] / values[0]), 1.0)
    for value in values:
        if log2(value / ticks[-1]) >= span / CROWDED:
            ticks.append(value)
    axes.set_xscale("log", base=2)
    axes.set_xlim(values[0] / 2 ** (0.05 * span), values[-1] * 2 ** (0.05 * span))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("passes")
    return Plot(figure, f"Tokens right by denoising passes. {told}.")


def _quality_by_time(rows: Rows) -> Plot:
    """Over the milliseconds that a text takes, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes, told = _sweep(rows, "milliseconds", "{:,.1f} ms")
    values = [row["milliseconds"] for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.2, max(values) * 1.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if max(values) > 200 * min(values) else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.set_xlabel("milliseconds per text")
    return Plot(figure, f"Tokens right by milliseconds per text. {told}.")


def _reliability(curves: Mapping[str, Rows]) -> Plot:
    """What came true over what was predicted, and below it how many of all are in each bin."""
    figure = canvas(4.4)
    curve, sizes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 3)), linewidth=1.2, label="as predicted", zorder=1)
    told = []
    for kind, rows in curves.items():
        number = list(KINDS).index(kind)
        predicted, observed = ([row[name] for row in rows] for name in ("predicted", "observed"))
        color, marker, line = SERIES[number], MARKERS[number], LINES[number]
        curve.plot(predicted, observed, color=color, marker=marker, linestyle=line, label=KINDS[kind], clip_on=False)
        total = sum(row["n"] for row in rows)
        beside = [value + (number - 0.5) * 0.022 for value in predicted]
        look = {"facecolor": "none" if number else color, "edgecolor": color}
        sizes.bar(beside, [row["n"] / total for row in rows], 0.02, **look)
        pairs = ", ".join(f"{row['predicted']:.0%} predicted and {row['observed']:.0%} right" for row in rows)
        told.append(f"Of {total:,} {KINDS[kind]}: {pairs}.")
    for axis in (curve.xaxis, curve.yaxis, sizes.yaxis):
        shares(axis)
    sizes.set_yticks([0.0, 0.5, 1.0])
    sizes.set_xlim(-0.04, 1.04)
    curve.set_ylabel("right")
    sizes.set(xlabel="predicted probability of being right", ylabel="in the bin")
    figure.legend(loc="outside upper left", ncols=3)
    return Plot(figure, f"Share that was right by predicted probability. {' '.join(told)}")


def _counted(name: str, label: str, rows: Rows) -> Plot:
    """A line over whole numbers."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = canvas()
    axes = figure.add_subplot()
    _points(axes, [row[name] for row in rows], rows)
    shares(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.02)
    axes.set(xlabel=label, ylabel="tokens right")
    told = _told([(f"{row[name]:,}", row["token_accuracy"]) for row in rows])
    return Plot(figure, f"Tokens right by {label}: {told}.")


def span(row: Mapping[str, Any]) -> str:
    """The lengths of a row of by_length."""
    return f"{row['shortest']}" + f"–{row['longest']}" * (row["longest"] != row["shortest"])


def _by_length(rows: Rows) -> Plot:
    figure = canvas()
    axes = figure.add_subplot()
    names = list(map(span, rows))
    _points(axes, range(len(rows)), rows, linestyle="none")
    shares(axes.yaxis)
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="length of the original, in content tokens", ylabel="tokens right")
    told = "; ".join(f"{name}: {row['token_accuracy']:.1%}" for name, row in zip(names, rows, strict=True))
    return Plot(figure, f"Tokens right by length of the original in content tokens. {told}.")


def _by_language(rows: Rows) -> Plot:
    figure = canvas(1.1 + 0.32 * len(rows))
    axes = figure.add_subplot()
    _points(axes, range(len(rows)), rows, upright=False, linestyle="none")
    shares(axes.xaxis)
    axes.set_yticks(range(len(rows)), [printable(row["lang"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("tokens right")
    told = "; ".join(f"{row['lang']} {row['token_accuracy']:.1%}" for row in rows)
    return Plot(figure, f"Tokens right by language. {told}.")
