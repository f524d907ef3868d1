"""embinv/training/plot.py: that every figure is in the picture, read off the axes before they are drawn."""

import math
import sys

import matplotlib
import pytest
from matplotlib.figure import Figure

from embinv.training import plot
from embinv.training.plot import _smoothed, draw_training


def progress(count, seconds=30.0):
    return [
        {
            "step": 10 * i,
            "seconds": seconds * i,
            "rate": 1 - i / (count + 1),
            "skipped": 2 * (i > 3),
            "gradient_norm": None if i == 2 else float(i),
            "samples_per_second": 100.0 * i,
            "model_flops_utilisation": 0.004 * i * 10,
            "loss_by_time": [None if i == 2 or (i, b) == (4, 0) else b + 1.0 / i for b in range(10)],
        }
        for i in range(1, count + 1)
    ]


def history(count, seconds=60.0):
    return [
        {
            "step": 20 * i,
            "seconds": seconds * i,
            "nelbo": 6.0 / i,
            "token_accuracy": 0.1 * i,
            "exact_match": 0.05 * i,
            "accuracy_at_10%_mask": 0.15 * i,
            "accuracy_at_50%_mask": 0.12 * i,
        }
        for i in range(1, count + 1)
    ]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws, checks the file, and returns the axes by title."""
    seen, save = [], Figure.savefig

    def saved(figure, *arguments, **options):
        seen.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)

    def drawn(*arguments):
        path = tmp_path / "training.png"
        draw_training(path, *arguments)
        assert path.read_bytes().startswith(b"\x89PNG")
        figure = seen.pop()
        assert not seen
        return {axes.get_title(): axes for axes in figure.axes}, figure

    return drawn


def lines(axes):
    """Label, x and y of each line that has a label of its own."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines if not line.get_label().startswith("_")}


def same_points(found, expected):
    return [tuple(point) for point in found] == [pytest.approx(point, nan_ok=True) for point in expected]


def test_nelbo_of_training_and_held_out_stand_over_the_minutes(draw):
    """Both are the bound: the mean over the times, whatever weight the objective gives them."""
    axes, _ = draw([{**row, "loss": 1000.0} for row in progress(6)], history(3), "a run")
    drawn = lines(axes["Loss (NELBO)"])
    means = {i: 4.5 + 1.0 / i for i in range(1, 7)} | {2: math.nan, 4: math.nan}  # gaps where a time was not seen
    assert same_points(drawn["training"], [(i / 2, mean) for i, mean in means.items()])
    assert same_points(drawn["held out (EMA weights)"], [(i, 6.0 / i) for i in (1, 2, 3)])


def test_accuracy_says_what_is_no_inversion(draw):
    axes, _ = draw(progress(6), history(3), "a run")
    drawn = lines(axes["Held-out accuracy (EMA weights)"])
    assert same_points(drawn["tokens, from a full mask"], [(i, 0.1 * i) for i in (1, 2, 3)])
    assert same_points(drawn["whole texts, from a full mask"], [(i, 0.05 * i) for i in (1, 2, 3)])
    assert {label for label in drawn if "gaps" in label} == {
        "filling gaps, 10% hidden (not inversion)",
        "filling gaps, 50% hidden (not inversion)",
    }


def test_ten_lines_go_from_blue_to_red_by_time(draw):
    axes, _ = draw(progress(6), history(3), "a run")
    drawn = axes["Cross-entropy of a token by time"].lines
    assert len(drawn) == 10
    for bucket, line in enumerate(drawn):
        expected = [math.nan if i == 2 or (i, bucket) == (4, 0) else bucket + 1.0 / i for i in range(1, 7)]
        assert line.get_ydata().tolist() == pytest.approx(expected, nan_ok=True)
    red, blue = ([matplotlib.colors.to_rgb(line.get_color())[part] for line in drawn] for part in (0, 2))
    assert red == sorted(red) and red[-1] > 0.8 > 0.2 > red[0]
    assert blue[0] > 0.7 > 0.2 > blue[-1]


def test_speed_has_utilisation_on_its_right(draw):
    axes, figure = draw(progress(6), history(3), "a run")
    speed = axes["Speed"]
    assert speed.lines[0].get_ydata().tolist() == [100.0 * i for i in range(1, 7)]
    figure.canvas.draw()
    [right] = speed.child_axes
    assert right.get_ylabel() == "MFU (%)"
    samples, percent = speed.get_ylim()[1], right.get_ylim()[1]
    assert percent == pytest.approx(100 * samples * 0.04 / 100)  # as at 100 samples a second


def test_skipped_steps_are_counted_and_marked_where_they_were(draw):
    axes, _ = draw(progress(6), history(1), "a run")
    gradients = axes["Gradient norm (2 skipped steps in red)"]
    assert gradients.lines[0].get_ydata().tolist() == pytest.approx([1, math.nan, 3, 4, 5, 6], nan_ok=True)
    assert [line.get_xdata()[0] for line in gradients.lines[2:]] == [2.0]  # minutes: the fourth row


def test_run_without_skipped_steps_says_so(draw):
    axes, _ = draw(progress(3), history(1), "a run")
    assert len(axes["Gradient norm (no step skipped)"].lines) == 2  # as measured, and smoothed


def test_long_run_counts_hours(draw):
    axes, _ = draw(progress(6, seconds=7200.0), history(3, seconds=14400.0), "a run")
    assert {each.get_xlabel() for title, each in axes.items() if title not in ("", "Speed")} == {"hours"}
    assert lines(axes["Loss (NELBO)"])["held out (EMA weights)"][0][0] == 4.0


@pytest.mark.parametrize("validations", [0, 1])
@pytest.mark.parametrize("rows", [0, 1])
def test_run_that_has_hardly_begun_is_drawn_too(draw, rows, validations):
    axes, _ = draw(progress(rows), history(validations), "a run", "of 1 TFLOP/s")
    assert len(lines(axes["Held-out accuracy (EMA weights)"])) == (4 if validations else 2)


def test_run_in_which_nothing_was_finite_is_drawn_too(draw):
    rows = [
        {**row, "gradient_norm": None, "model_flops_utilisation": None, "loss_by_time": [None] * 10}
        for row in progress(3)
    ]
    axes, _ = draw(rows, [], "a run")
    assert all(math.isnan(y) for _, y in lines(axes["Loss (NELBO)"])["training"])


def test_smoothing_is_the_running_mean_of_what_was_measured():
    values = [float(i % 7) for i in range(300)]
    values[150] = math.nan
    found = _smoothed(values)
    for place in (0, 40, 150, 299):
        near = [v for v in values[max(0, place - 3) : place + 4] if not math.isnan(v)]
        assert found[place] == pytest.approx(sum(near) / len(near))
    assert _smoothed([1.0, 5.0, 2.0]) == [1.0, 5.0, 2.0]
    assert math.isnan(_smoothed([math.nan])[0])


def test_long_run_is_drawn_by_a_thousand_points_that_are_means_of_what_was_measured(draw, monkeypatch):
    monkeypatch.setattr(plot, "POINTS", 10)
    rows = progress(25)  # three in a row make one
    axes, _ = draw(rows, history(3), "a run")
    speed = axes["Speed"].lines[0].get_xydata().tolist()
    ends = [3, 6, 9, 12, 15, 18, 21, 24, 25]
    expected = [(i / 2, 100.0 * (i - 1 if i < 25 else i)) for i in ends]
    assert same_points(speed, expected)
    [pale, _, skipped] = axes["Gradient norm (2 skipped steps in red)"].lines
    assert pale.get_ydata()[0] == pytest.approx((1 + 3) / 2)  # the second was not finite
    assert skipped.get_xdata()[0] == 3.0  # the fourth row's steps, shown with the sixth
    first = axes["Cross-entropy of a token by time"].lines[0].get_ydata()
    assert first[0] == pytest.approx((1 + 1 / 3) / 2) and first[1] == pytest.approx((1 / 5 + 1 / 6) / 2)


def test_long_run_costs_no_more_than_a_short_one(draw):
    means = 0

    def counted(values):
        nonlocal means
        means += len(values)
        return mean(values)

    mean, costs = plot._mean, []
    for rows in (1_000, 20_000):
        means = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plot, "_mean", counted)
            draw(progress(rows, seconds=2.0), history(3), "a run")
        costs.append(means)
    assert costs[1] < costs[0] + 15 * 20_000  # each value once more, to thin them


def test_drawing_leaves_the_backend_of_the_program_alone(draw, monkeypatch):
    monkeypatch.setattr(matplotlib, "use", lambda name: pytest.fail(f"takes {name} for the whole program"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    draw(progress(3), history(1), "a run")


def test_a_corrector_is_shown_beside_the_hypotheses_that_it_was_given(draw):
    rows = [
        {"step": 1, "seconds": 60.0 * i, "nll": 2.0 / i, "token_accuracy": 0.5 + 0.1 * i, "exact_match": 0.1}
        | {"hypothesis_accuracy": 0.5}
        for i in (1, 2)
    ]
    axes, _ = draw(progress(5), rows, "a corrector")
    drawn = lines(axes["Held-out accuracy (EMA weights)"])
    assert same_points(drawn["tokens, after one correction"], [(1, 0.6), (2, 0.7)])
    assert same_points(drawn["tokens, of the hypotheses"], [(1, 0.5), (2, 0.5)])
    trained = axes["Loss (NLL)"].lines[0].get_ydata()
    assert [value for value in trained if not math.isnan(value)] == pytest.approx([1.0, 1 / 3, 1 / 5])  # of t near 0
