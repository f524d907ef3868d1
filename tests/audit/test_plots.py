"""embinv/audit/plots.py: that the plots show the values of the report, read off the axes."""

import copy

import pytest

from embinv.audit.plots import plots
from embinv.evaluation.drawing import svg
from tests.audit.leaks import bare_report, report


@pytest.fixture(scope="module")
def drawn():
    return plots(report())


def points(plot):
    """(x, y) of every line with a marker."""
    lines = plot.figure.axes[0].get_lines()
    return [
        (float(x), float(y))
        for line in lines
        if line.get_marker() in set("os^")
        for x, y in zip(*line.get_data(), strict=True)
    ]


def test_every_plot_is_there_where_its_data_is_and_none_without(drawn):
    assert list(drawn) == ["probability", "entities", "topics", "defences", "rotation"]
    assert plots(bare_report()) == {}


def test_the_curve_shows_the_share_at_each_threshold(drawn):
    curve = report()["leakage"]["by_probability"]["curve"]
    assert points(drawn["probability"]) == [(row["threshold"], row["share"]) for row in curve]


def test_entities_and_topics_stand_beside_their_names(drawn):
    labels = [label.get_text() for label in drawn["entities"].figure.axes[0].get_yticklabels()]
    assert labels == ["CITY (3)", "PERSON (3)"]
    assert points(drawn["entities"]) == [(pytest.approx(1 / 3), 0), (pytest.approx(1 / 3), 1)]
    assert points(drawn["topics"]) == [(0.25, 0)] and "pay, bank" in drawn["topics"].alt


def test_topics_without_a_share_given_away_show_how_many_vectors_they_have():
    topics = [{"terms": ["a"], "n": 4, "share": 0.4, "given_away": None, "given_away_se": None}]
    assert points(plots(report(topics=topics))["topics"]) == [(0.4, 0)]


def test_defences_show_both_attackers_and_the_front_through_what_leaks_most(drawn):
    assert set(points(drawn["defences"])) == {(0.81, 0.66), (0.74, 0.3), (0.8, 0.65), (0.74, 0.45)}
    axes = drawn["defences"].figure.axes[0]
    (front,) = [line for line in axes.get_lines() if line.get_label() == "front"]
    assert list(zip(*front.get_data(), strict=True)) == [(0.74, 0.45), (0.81, 0.66)]
    assert {text.get_text() for text in axes.texts} == {"none", "noise (sigma 0.1)"}
    assert "attacker adapts to it: token F1 45.0%" in drawn["defences"].alt


def test_who_knows_pairs_of_a_rotated_store_is_drawn_where_he_reads_most_and_the_front_goes_through_him():
    rows = copy.deepcopy(report()["defences"]["rows"])
    rows[1]["worst"] = {"attacker": "rotation", "token_f1": 0.6, "token_f1_se": 0.01}
    drawn = plots(report(defences={"rows": rows}))["defences"]
    assert set(points(drawn)) == {(0.81, 0.66), (0.74, 0.3), (0.8, 0.65), (0.74, 0.45), (0.74, 0.6)}
    (front,) = [line for line in drawn.figure.axes[0].get_lines() if line.get_label() == "front"]
    assert list(zip(*front.get_data(), strict=True)) == [(0.74, 0.6), (0.81, 0.66)]
    assert "attacker knows pairs: token F1 60.0%" in drawn.alt


def test_a_defence_without_its_utility_or_its_leakage_is_not_drawn():
    rows = copy.deepcopy(report()["defences"]["rows"])
    rows[0]["ndcg_at_10"], rows[1]["leakage"], rows[1]["adapted"] = None, {}, None
    rows[1]["worst"] = None
    assert points(plots(report(defences={"rows": rows}))["defences"]) == [(0.8, 0.65)]


def test_rotation_runs_over_known_pairs_in_their_order(drawn):
    assert points(drawn["rotation"]) == [(0, 0.15), (1, 0.6)]
    ticks = [label.get_text() for label in drawn["rotation"].figure.axes[0].get_xticklabels()]
    assert ticks == ["100", "1,000"]


def test_the_same_report_gives_the_same_bytes():
    first, second = ({name: svg(plot, name) for name, plot in plots(report()).items()} for _ in range(2))
    assert first == second
