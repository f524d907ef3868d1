"""training.png: what a run was like at a glance, from its progress rows and its history of validations.

The loss, and at which times (of a T5: at which places of a text) it is still high; what is recovered from a vector
alone; how fast it went, and how steadily.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
BLUE, PALE, GOLD, RED, VIOLET, GREY, GREEN = "#1f4e8c", "#9db4d0", "#c9a227", "#a8323e", "#6b2d8c", "#777777", "#2f7d4f"
GAP_FILLING = "accuracy_at_"
SPREAD = 20.0  # of gradient norms, from which their axis is logarithmic
BY_TIME, BY_PLACE = "loss_by_time", "loss_by_place"
LONG = 3 * 3600.0  # seconds from which the axis counts hours
POINTS = 1000  # on a line at most: more than a picture of this width shows
# Over the steps since the row before.
MEASURED = ("cross_entropy", "gradient_norm", "samples_per_second", "model_flops_utilisation")


def draw_training(path: Path, progress: Rows, history: Rows, title: str, yardstick: str = "") -> None:
    """Draws four pictures over the minutes of a run; any of its rows may be missing.

    Args:
        path: the PNG to write.
        progress: rows with step, seconds, rate, skipped, gradient_norm, samples_per_second,
            model_flops_utilisation, cross_entropy (null where nothing was finite) and loss_by_time or loss_by_place,
            a list that may hold nulls.
        history: rows with step, seconds, nelbo or nll, token_accuracy, exact_match, accuracy_at_*_mask, and of a
            corrector hypothesis_accuracy.
        title: of the whole.
        yardstick: what the utilisation is a share of.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: which backend a program has is its own
    from matplotlib.figure import Figure

    end = max((row["seconds"] for row in (*progress, *history)), default=60.0)
    unit, seconds = ("hours", 3600.0) if end > LONG else ("minutes", 60.0)
    progress = [{**row, "at": row["seconds"] / seconds} for row in _thinned(progress)]
    history = [{**row, "at": row["seconds"] / seconds} for row in history]

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 2)
    loss = figure.add_subplot(grid[:2, 0])
    loss.set_xlim(0, end / seconds * 1.01)
    by_part, accuracy, speed, gradients = (
        figure.add_subplot(place, sharex=loss) for place in (grid[:2, 1], grid[2:, 0], grid[2, 1], grid[3, 1])
    )
    _draw_loss(loss, progress, history)
    _draw_loss_by_part(figure, by_part, progress)
    _draw_accuracy(accuracy, history)
    _draw_speed(speed, progress)
    _draw_gradients(gradients, progress)
    for axes in (loss, by_part, accuracy, gradients):
        axes.set_xlabel(unit)
    figure.suptitle(f"{title}\n" if yardstick else title, fontsize=14)
    if yardstick:
        figure.text(0.5, 0.955, yardstick, ha="center", va="center", fontsize=8, color=GREY)
    figure.savefig(path, dpi=100)


def _values(rows: Rows, name: str) -> list[float]:
    """A column, with gaps where nothing was measured."""
    return [_number(row.get(name)) for row in rows]


def _number(value: float | None) -> float:
    return nan if value is None else value


def _mean(values: Sequence[float | None]) -> float | None:
    """Of what was measured; None if nothing was."""
    finite = [value for value in values if value is not None and isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def _thinned(progress: Rows) -> Rows:
    """At most POINTS rows: of as many in a row the last one, with the means of what was measured."""
    size = -(-len(progress) // POINTS)
    if size <= 1:
        return progress
    thinned = []
    for start in range(0, len(progress), size):
        group = progress[start : start + size]
        means: dict[str, Any] = {name: _mean([row.get(name) for row in group]) for name in MEASURED}
        for name in (BY_TIME, BY_PLACE):
            if parts := [row[name] for row in group if row.get(name)]:
                means[name] = [_mean(part) for part in zip(*parts, strict=True)]
        thinned.append({**group[-1], **means})
    return thinned


def _smoothed(values: Sequence[float]) -> list[float]:
    """Running means over a 50th of a run; what was not measured is left out of them."""
    half = len(values) // 100
    near = (_mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values)))
    return [_number(mean) for mean in near]


def _parts(row: Mapping[str, Any]) -> Sequence[float | None]:
    return row.get(BY_TIME) or row.get(BY_PLACE) or ()


def _of_places(progress: Rows) -> bool:
    """Whether these are of a T5."""
    return any(BY_PLACE in row for row in progress)


def _corrects(history: Rows) -> bool:
    """Whether these are of a corrector."""
    return any("hypothesis_accuracy" in row for row in history)


def _training_loss(progress: Rows, corrects: bool) -> list[float]:
    """What validation measures, about: of a T5 the mean over all tokens.

    Of a denoiser the mean over all times of what a hidden token costs, which is near the NELBO whatever is weighed; of
    one that corrects, that of a token of a hypothesis that is whole, or nearly.
    """
    if _of_places(progress):
        return _values(progress, "cross_entropy")
    by_time = [row.get(BY_TIME) for row in progress]
    if corrects:
        return [_number((parts or [None])[0]) for parts in by_time]
    return [sum(parts) / len(parts) if parts and None not in parts else nan for parts in by_time]


def _draw_loss(axes: "Axes", progress: Rows, history: Rows) -> None:
    """The loss in training and held out, and the learning rate behind them."""
    rates = axes.twinx()
    rates.fill_between(_values(progress, "at"), _values(progress, "rate"), color=GOLD, alpha=0.15, linewidth=0)
    rates.set(ylim=(0, 1.02), ylabel="learning rate (share of the full one)")
    rates.yaxis.label.set_color(GOLD)
    axes.set_zorder(rates.get_zorder() + 1)
    axes.patch.set_visible(False)
    name = "nll" if any("nll" in row for row in history) or _of_places(progress) else "nelbo"
    trained, held_out = _training_loss(progress, _corrects(history)), _values(history, name)
    axes.plot(_values(progress, "at"), trained, ".-", color=PALE, linewidth=1, markersize=2, label="training")
    axes.plot(_values(history, "at"), held_out, "o-", color=BLUE, markersize=3, label="held out (EMA weights)")
    axes.set(ylabel="nats per token", title=f"Loss ({name.upper()})")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)


def _draw_loss_by_part(figure: "Figure", axes: "Axes", progress: Rows) -> None:
    """One line for each part of the times: from texts that are nearly whole (blue) to nearly all hidden (red).

    Of a T5, for each part of the places in a text.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

    buckets = max((len(_parts(row)) for row in progress), default=10) or 10
    colors = LinearSegmentedColormap.from_list("hidden", ["#1540c4", "#9b4fb5", "#e02020"], buckets)
    for bucket in range(buckets):
        values = [_number((_parts(row) or [None] * buckets)[bucket]) for row in progress]
        axes.plot(_values(progress, "at"), _smoothed(values), color=colors(bucket), linewidth=1)
    scale = ScalarMappable(BoundaryNorm([i / buckets for i in range(buckets + 1)], buckets), colors)
    if _of_places(progress):
        label, title = "place, as a share of the longest text", "Cross-entropy of a token by its place"
    else:
        label, title = "share of the text that is hidden", "Cross-entropy of a token by time"
    figure.colorbar(scale, ax=axes, label=label, pad=0.01)
    axes.set(ylabel="nats per token", title=title)
    axes.grid(alpha=0.3)


def _draw_accuracy(axes: "Axes", history: Rows) -> None:
    """What is recovered from a vector alone, and beside it how well gaps are filled, which is no inversion.

    Of a corrector, what is right after one correction, and beside it in the hypotheses.
    """
    if _corrects(history):
        how = "after one correction"
    else:
        how = "from left to right" if any("nll" in row for row in history) else "from a full mask"
    names = {"token_accuracy": f"tokens, {how}", "exact_match": f"whole texts, {how}"}
    at = _values(history, "at")
    if _corrects(history):
        before = _values(history, "hypothesis_accuracy")
        axes.plot(at, before, "--", color=GREY, linewidth=1, label="tokens, of the hypotheses")
    for (name, label), color in zip(names.items(), (RED, VIOLET), strict=True):
        values = _values(history, name)
        axes.plot(at, values, "o-", color=color, markersize=4, linewidth=2, label=label)
        if values:
            place = (at[-1], values[-1])
            side = "right" if at[-1] > 0.1 * axes.get_xlim()[1] else "left"
            axes.annotate(f"{values[-1]:.1%}", place, (0, 6), textcoords="offset points", color=color, ha=side)
    gaps = sorted({name for row in history for name in row if name.startswith(GAP_FILLING)})
    for name, style in zip(gaps, ("--", ":", "-.") * len(gaps), strict=False):
        share = name.removeprefix(GAP_FILLING).removesuffix("_mask")
        label = f"filling gaps, {share} hidden (not inversion)"
        axes.plot(at, _values(history, name), style, color=GREY, linewidth=1, label=label)
    if not history:
        axes.text(0.5, 0.5, "not validated yet", transform=axes.transAxes, ha="center", color=GREY)
    axes.set(ylabel="share right", ylim=(0, 1), title="Held-out accuracy (EMA weights)")
    axes.grid(alpha=0.3)
    if history:
        axes.legend(loc="best", fontsize=8)


def _draw_speed(axes: "Axes", progress: Rows) -> None:
    """Samples a second, and on the right the same line as a share of the peak."""
    speeds = _values(progress, "samples_per_second")
    axes.plot(_values(progress, "at"), speeds, color=GREEN, linewidth=1)
    axes.set(ylabel="samples/s", title="Speed")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.tick_params(labelbottom=False)
    shares = [
        row["model_flops_utilisation"] / row["samples_per_second"]
        for row in progress
        if row.get("model_flops_utilisation") and row.get("samples_per_second")
    ]
    if shares:
        percent = 100 * shares[-1]
        right = axes.secondary_yaxis("right", functions=(lambda y: y * percent, lambda y: y / percent))
        right.set_ylabel("MFU (%)")


def _draw_gradients(axes: "Axes", progress: Rows) -> None:
    """The gradient's norm before clipping; a red line where steps were skipped."""
    measured = _values(progress, "gradient_norm")
    axes.plot(_values(progress, "at"), measured, color=PALE, linewidth=1)
    axes.plot(_values(progress, "at"), _smoothed(measured), color=BLUE, linewidth=1)
    before = 0
    for row in progress:
        skipped = row.get("skipped", 0)
        if skipped > before:
            axes.axvline(row["at"], color=RED, linewidth=1, alpha=0.6)
        before = max(before, skipped)
    norms = [value for value in measured if value > 0]
    if norms and max(norms) > SPREAD * min(norms):
        axes.set_yscale("log")
    elif norms:
        axes.set_ylim(0, 1.1 * max(norms))
    title = f"Gradient norm ({before:,} skipped steps in red)" if before else "Gradient norm (no step skipped)"
    axes.set(ylabel="norm", title=title)
    axes.grid(alpha=0.3)
