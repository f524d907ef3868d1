"""embinv/evaluation/plots.py: that the plots show the values of the report, read off the axes, and their SVG."""

import re
import sys

import matplotlib
import pytest

from embinv.evaluation.drawing import COLORS, svg
from embinv.evaluation.plots import plots


def accurate(value, error=0.02, **row):
    return {**row, "token_accuracy": value, "token_accuracy_se": error}


SWEEP = [
    accurate(0.2 + 0.1 * place - 0.05 * second, strategy=strategy, passes=passes, milliseconds=3.0 * passes + second)
    for second, strategy in enumerate(("confidence", "ancestral"))
    for place, passes in enumerate((1, 2, 4, 8, 32))
]
REPORT = {
    "sweep": SWEEP,
    "reliability": {
        "token": [{"n": 30, "predicted": 0.25, "observed": 0.2}, {"n": 70, "predicted": 0.95, "observed": 1.0}],
        "text": [{"n": 12, "predicted": 0.1, "observed": 0.0}],
    },
    "by_position": [accurate(1.0 / place, position=place, n=50) for place in range(1, 31)],
    "by_length": [
        accurate(0.8, shortest=3, longest=9, n=20),
        accurate(0.5, shortest=10, longest=10, n=21),
    ],
    "languages": {"de": accurate(0.4, 0.05, n=10), "fa": accurate(0.6, 0.1, n=11)},
    "milestones": [accurate(0.3, step=1000), accurate(0.7, 0.01, step=20_000)],
}
NAMES = ["passes", "milliseconds", "reliability", "position", "language", "length", "milestones"]


@pytest.fixture(scope="module")
def drawn():
    return plots(REPORT)


@pytest.fixture(scope="module")
def written(drawn):
    return {name: svg(plot, name) for name, plot in drawn.items()}


def series(axes):
    """Points of every line with its error bars' ends, by its label."""
    found = {}
    for bars in axes.containers:
        line, _, segments = bars.lines
        ends = [[tuple(map(tuple, part)) for part in lines.get_segments()] for lines in segments]
        found[bars.get_label()] = ([tuple(point) for point in line.get_xydata().tolist()], ends)
    return found


def points(plot):
    [(found, _)] = series(plot.figure.axes[0]).values()
    return found


def test_plots_are_of_what_the_report_has(drawn):
    assert list(drawn) == NAMES
    assert plots({}) == {}
    assert plots(dict.fromkeys(REPORT)) == {}
    assert plots({"languages": {"de": REPORT["languages"]["de"]}}) == {}  # one language is the whole
    assert list(plots({"milestones": REPORT["milestones"]})) == ["milestones"]


def test_sweep_is_a_line_for_each_strategy_over_passes_and_over_time(drawn):
    for name, column in (("passes", "passes"), ("milliseconds", "milliseconds")):
        axes = drawn[name].figure.axes[0]
        found = series(axes)
        assert list(found) == ["confidence", "ancestral"]
        for strategy, (at, [errors]) in found.items():
            mine = [row for row in SWEEP if row["strategy"] == strategy]
            assert at == [pytest.approx((row[column], row["token_accuracy"])) for row in mine]
            for (low, high), row in zip(errors, mine, strict=True):
                assert (low[1], high[1]) == pytest.approx((row["token_accuracy"] - 0.02, row["token_accuracy"] + 0.02))
        assert axes.get_xscale() == "log"
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines[:1]}
        looks |= {(bars[0].get_color(), bars[0].get_marker(), bars[0].get_linestyle()) for bars in axes.containers}
        assert [len(set(parts)) for parts in zip(*looks, strict=True)] == [2, 2, 2]


def test_places_lengths_languages_and_steps_are_where_they_belong(drawn):
    assert points(drawn["position"]) == [pytest.approx((place, 1 / place)) for place in range(1, 31)]
    assert points(drawn["length"]) == [(0, 0.8), (1, 0.5)]
    assert [tick.get_text() for tick in drawn["length"].figure.axes[0].get_xticklabels()] == ["3–9", "10"]
    assert points(drawn["language"]) == [(0.4, 0), (0.6, 1)]
    assert [tick.get_text() for tick in drawn["language"].figure.axes[0].get_yticklabels()] == ["de", "fa"]
    assert points(drawn["milestones"]) == [(1000, 0.3), (20_000, 0.7)]


def test_reliability_has_its_diagonal_and_the_sizes_of_bins(drawn):
    curve, sizes = drawn["reliability"].figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in curve.lines}
    assert lines == {
        "as predicted": [[0, 0], [1, 1]],
        "tokens": [[0.25, 0.2], [0.95, 1.0]],
        "texts": [[0.1, 0.0]],
    }
    assert [[bar.get_height() for bar in bars] for bars in sizes.containers] == [[0.3, 0.7], [1.0]]
    hollow = [bars[0].get_facecolor()[3] == 0 for bars in sizes.containers]
    assert hollow == [False, True]  # as the caption has it
    [alone] = plots({"reliability": {"text": REPORT["reliability"]["text"]}})["reliability"].figure.axes[1].containers
    assert alone[0].get_facecolor()[3] == 0


def test_every_share_is_on_an_axis_from_0_to_100_percent(drawn):
    for name, plot in drawn.items():
        axis = plot.figure.axes[0].xaxis if name == "language" else plot.figure.axes[0].yaxis
        assert tuple(axis.get_view_interval()) == (0.0, 1.0)
        assert axis.get_major_formatter()(0.4) == "40%"


def test_what_is_missing_is_no_point_at_zero():
    rows = [accurate(None, position=1), accurate(0.5, None, position=2), {"position": 3}, accurate(0.4, position=4)]
    assert points(plots({"by_position": rows})["position"]) == [(2, 0.5), (4, 0.4)]
    [plot] = plots({"sweep": [{**SWEEP[0], "milliseconds": None}]}).values()
    assert plot.figure.axes[0].get_xlabel() == "passes"


def test_alternative_text_tells_the_values(drawn):
    assert "confidence: 20.0% at 1, 60.0% at 32" in drawn["passes"].alt
    assert "de 40.0%; fa 60.0%" in drawn["language"].alt
    assert "Of 100 tokens: 25% predicted and 20% right" in drawn["reliability"].alt


def test_same_report_gives_the_same_bytes_whatever_the_programs_style_is(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "lines.markersize": 40}):
        for name in ("passes", "reliability"):
            assert svg(plots(REPORT)[name], name) == written[name]
        assert matplotlib.rcParams["font.size"] == 30


def test_svg_needs_nothing_from_elsewhere_and_shares_no_id(written):
    seen = set()
    for name, text in written.items():
        assert text.startswith('<svg role="img" aria-label="') and text.endswith("</svg>")
        assert "http" not in text and "<style" not in text and "<metadata" not in text
        ids = re.findall(r'\sid="([^"]*)"', text)
        assert len(ids) == len(set(ids)) and all(each.startswith(f"{name}-") for each in ids)
        assert not seen & set(ids)
        assert set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
        seen |= set(ids)


def test_every_colour_can_be_changed_by_the_page(written):
    for text in written.values():
        found = set(re.findall(r"#[0-9a-f]{6}\b", text))
        assert found <= set(COLORS)
        for color in found:
            assert text.count(color) == text.count(f"var({COLORS[color]}, {color})")


def test_text_is_text_and_no_formula():
    label = "a $\\frac$ <b>\x07"
    [passes, _] = plots({"sweep": [{**SWEEP[0], "strategy": label}]}).values()
    text = svg(passes, "passes")
    assert "a $\\frac$ &lt;b&gt;⟨U+0007⟩</text>" in text
    assert "<b>" not in text and "tokens right</text>" in text


@pytest.mark.parametrize("count", [1, 7])
def test_more_strategies_than_colours_and_a_single_one_are_drawn(count):
    rows = [{**SWEEP[0], "strategy": f"way {number}"} for number in range(count)]
    assert len(series(plots({"sweep": rows})["passes"].figure.axes[0])) == count
