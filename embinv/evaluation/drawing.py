"""How figures of a page are drawn: their colours, their style, and a figure as an <svg> that can stand inside a page.

Each is a figure of its own without pyplot. `svg` writes it so that its text is text, its ids are its own, and every
colour is a CSS variable (COLORS) with the colour for light paper as its fallback, so that a page can give others on a
dark background (`embinv.evaluation.document`). What is drawn is said elsewhere: `plots` beside this file for an
evaluation, `embinv.audit.plots` for a leakage report.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from embinv.evaluation.markup import visible

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#22262b", "#5b626d", "#d5d9df"
SERIES = ("#0072b2", "#b84a00", "#00795a", "#94407f", "#7a6200", "#4a4f57")  # after Okabe and Ito, darker
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
COLORS = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)
}
"""The CSS variable of each colour in a plot."""

WIDTH, HEIGHT = 5.2, 3.3  # inches; small, so that letters stay legible where a phone shows a plot at half its size
STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 11),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.parse_math": False,  # a dollar sign in a label is one
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "legend.handlelength": 3.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "embinv",
}


@dataclass(frozen=True)
class Plot:
    """A drawn figure.

    Attributes:
        figure: without a title; the page's caption stands for it.
        alt: what it shows, for who cannot see it.
    """

    figure: "Figure"
    alt: str


def svg(plot: Plot, name: str) -> str:
    """A plot as an <svg> element for a page, the same bytes for the same plot.

    Args:
        plot: the plot.
        name: stands before each of its ids, so that two plots on a page share none.
    """
    buffer = StringIO()
    with drawing_style():
        plot.figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, box, inside = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', buffer.getvalue(), maxsplit=1)
    inside = inside[: inside.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<[a-z][^>]*>", lambda tag: _for_page(tag[0], name), inside)
    return f'<svg role="img" aria-label="{visible(plot.alt)}" viewBox="{box}">{inside.strip()}</svg>'


def _for_page(tag: str, name: str) -> str:
    """A tag with ids of its own and colours by name."""
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r'(\sid="|url\(#|href="#)', lambda found: f"{found[0]}{name}-", tag)
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda found: f"{found[1]}: var({COLORS[found[2]]}, {found[2]})" if found[2] in COLORS else found[0],
        tag,
    )


@contextmanager
def drawing_style() -> Iterator[None]:
    """STYLE over matplotlib's own defaults, whatever the program's are, which come back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, STYLE))
        yield


def canvas(height: float = HEIGHT) -> "Figure":
    """An empty figure of the usual width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def shares(axis: "Axis") -> None:
    """0 to 100%."""
    from matplotlib.axis import XAxis
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    axis.set_major_locator(MultipleLocator(0.2))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    limit = axis.axes.set_xlim if isinstance(axis, XAxis) else axis.axes.set_ylim
    limit(0.0, 1.0)
