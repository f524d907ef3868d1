"""The plots of audit.html, from the values of audit.json. Nothing is measured here.

They are drawn as `embinv.evaluation.drawing` says; series differ in marker and line too, not in colour alone. What the
report does not have is not drawn.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from embinv.audit.findings import defence_name
from embinv.evaluation.drawing import INK, LINES, MARKERS, MUTED, SERIES, Plot, canvas, drawing_style, shares
from embinv.evaluation.markup import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

ATTACKERS = {"leakage": "does not adapt", "adapted": "adapts to it", "rotation": "knows pairs"}
LONGEST = 34  # signs of a label beside an axis


def plots(report: Mapping[str, Any]) -> dict[str, Plot]:
    """Every plot that the report has data for.

    Args:
        report: of audit.json.

    Returns:
        Those of `probability`, `entities`, `topics`, `defences` and `rotation` that there are, in this order.
    """
    entities, defences = report.get("entities") or {}, report.get("defences") or {}
    kinds = [{"kind": kind, **row} for kind, row in (entities.get("by_kind") or {}).items()]
    data = {
        "probability": (_probability, ((report.get("leakage") or {}).get("by_probability") or {}).get("curve")),
        "entities": (_entities, sorted(kinds, key=lambda row: (-row["recall"], row["kind"]))),
        "topics": (_topics, [row for row in report.get("topics") or () if row["terms"]]),
        "defences": (_defences, [row for row in defences.get("rows") or () if _drawn(row)]),
        "rotation": (_rotation, [r for r in defences.get("rotation") or () if r.get("token_f1") is not None]),
    }
    with drawing_style():
        return {name: draw(rows) for name, (draw, rows) in data.items() if rows}


def _probability(rows: Rows) -> Plot:
    figure = canvas()
    axes = figure.add_subplot()
    at, values = [row["threshold"] for row in rows], [row["share"] for row in rows]
    axes.plot(at, values, color=SERIES[0], marker=MARKERS[0], markersize=3, linewidth=1.6, clip_on=False)
    for axis in (axes.xaxis, axes.yaxis):
        shares(axis)
    axes.set(xlabel="probability, at least", ylabel="share of vectors")
    told = "; ".join(f"{share:.1%} at {threshold:.0%} or more" for threshold, share in zip(at, values, strict=True))
    return Plot(figure, f"Share of vectors by the probability that 90% of their text is right. {told}.")


def _bars(labels: Sequence[str], values: Sequence[float], errors: Sequence[float | None]) -> tuple["Figure", "Axes"]:
    """Points with standard errors, one below the other."""
    figure = canvas(1.1 + 0.32 * len(labels))
    axes = figure.add_subplot()
    places = range(len(labels))
    spread = [nan if error is None else error for error in errors]
    look: dict[str, Any] = {"color": SERIES[0], "marker": MARKERS[0], "linestyle": "none", "capsize": 3}
    drawn = axes.errorbar(values, places, xerr=spread, markersize=4.5, elinewidth=1.2, **look)
    drawn[0].set_clip_on(False)
    shares(axes.xaxis)
    axes.set_yticks(list(places), [_short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _entities(rows: Rows) -> Plot:
    names = [f"{row['kind']} ({row['n']:,})" for row in rows]
    figure, axes = _bars(names, [row["recall"] for row in rows], [row["recall_se"] for row in rows])
    axes.set_xlabel("recovered")
    told = "; ".join(f"{row['kind']} {row['recall']:.1%} of {row['n']:,}" for row in rows)
    return Plot(figure, f"Labelled values that stand in the recovered texts, by kind. {told}.")


def _topics(rows: Rows) -> Plot:
    names = [", ".join(row["terms"][:3]) for row in rows]
    known = all(row["given_away"] is not None for row in rows)
    values = [row["given_away"] if known else row["share"] for row in rows]
    errors = [row["given_away_se"] if known else None for row in rows]
    figure, axes = _bars(names, values, errors)
    label = "give their text away" if known else "share of vectors"
    axes.set_xlabel(label)
    told = "; ".join(f"{name}: {value:.1%}" for name, value in zip(names, values, strict=True))
    return Plot(figure, f"Topics by the share of their vectors that {label}. {told}." if known else f"Topics. {told}.")


def _drawn(row: Mapping[str, Any]) -> bool:
    return row.get("ndcg_at_10") is not None and any(_leak(row, who) is not None for who in ATTACKERS)


def _leak(row: Mapping[str, Any], who: str) -> float | None:
    return _figures(row, who).get("token_f1")


def _figures(row: Mapping[str, Any], who: str) -> Mapping[str, Any]:
    """Of who knows pairs only where nobody reads more: his other figures are another plot's."""
    worst = row.get("worst") or {}
    return worst if worst.get("attacker") == who else row.get(who) or {}


def _defences(rows: Rows) -> Plot:
    """What leaks over what the search is still good for; the front is joined, and its points are named."""
    figure = canvas(4.4)
    axes, told = figure.add_subplot(), []
    front = sorted((row for row in rows if row.get("on_front")), key=lambda row: row["ndcg_at_10"])
    ends = [row["worst"]["token_f1"] for row in front]
    if len(front) > 1:
        at = [row["ndcg_at_10"] for row in front]
        axes.plot(at, ends, color=MUTED, linestyle=LINES[1], linewidth=1.2, zorder=1, label="front")
    for number, (who, label) in enumerate(ATTACKERS.items()):
        mine = [row for row in rows if _leak(row, who) is not None]
        if not mine:
            continue
        errors = [_figures(row, who).get("token_f1_se") for row in mine]
        spread = [nan if error is None else error for error in errors]
        look: dict[str, Any] = {"color": SERIES[number], "marker": MARKERS[number], "linestyle": "none", "capsize": 2}
        values = [_figures(row, who)["token_f1"] for row in mine]
        drawn = axes.errorbar([row["ndcg_at_10"] for row in mine], values, yerr=spread, label=label, **look)
        drawn[0].set_clip_on(False)
        told += [
            f"{defence_name(row)}, attacker {label}: token F1 {leak:.1%}"
            for row, leak in zip(mine, values, strict=True)
        ]
    for row, leak in zip(front, ends, strict=True):
        where = (row["ndcg_at_10"], leak)
        label = _short(defence_name(row))
        axes.annotate(label, where, (4, 6), textcoords="offset points", fontsize=9, color=INK, ha="right")
    shares(axes.yaxis)
    values = [row["ndcg_at_10"] for row in rows]
    room = max(max(values) - min(values), 0.02)
    axes.set_xlim(min(values) - 0.3 * room, max(values) + 0.1 * room)
    axes.set(xlabel="nDCG@10 of the search", ylabel="token F1 of what leaks")
    figure.legend(loc="outside upper left", ncols=3)
    return Plot(figure, f"What leaks over what the search is good for. {'; '.join(told)}.")


def _rotation(rows: Rows) -> Plot:
    figure = canvas()
    axes = figure.add_subplot()
    mine = sorted(rows, key=lambda row: row["pairs"])
    spread = [row["token_f1_se"] if row.get("token_f1_se") is not None else nan for row in mine]
    values = [row["token_f1"] for row in mine]
    look: dict[str, Any] = {"color": SERIES[0], "marker": MARKERS[0], "linestyle": LINES[0], "capsize": 3}
    drawn = axes.errorbar(range(len(mine)), values, yerr=spread, linewidth=1.6, **look)
    drawn[0].set_clip_on(False)
    axes.set_xticks(range(len(mine)), [f"{row['pairs']:,}" for row in mine])
    shares(axes.yaxis)
    axes.set(xlabel="known pairs of text and vector", ylabel="token F1 of what leaks")
    told = "; ".join(f"{row['token_f1']:.1%} with {row['pairs']:,} pairs" for row in mine)
    return Plot(figure, f"What leaks through a secret rotation by the pairs that an attacker knows. {told}.")


def _short(label: str) -> str:
    text = printable(label)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
