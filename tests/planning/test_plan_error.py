"""benchmarks/plan_error.py: what it makes of runs; the runs themselves are the benchmark's."""

import pytest

from benchmarks import plan_error as benchmark
from benchmarks.plan_error import VECTORS, WINDOW, Sizes, plan_error, seconds_of_all
from embinv.planning.throughput import Trial


def follow(monkeypatch, slower=1.0):
    """Jobs that take 10 s, 2 s more, and a millisecond a unit; the large ones so many times longer."""

    def trial(units, name):
        work = (2 + units / 1000) * (slower if name == "large" else 1.0)
        return Trial(units, 10 + work, work)

    monkeypatch.setattr(benchmark, "encode", lambda work, texts, rows, name, settings: trial(rows, name))
    monkeypatch.setattr(benchmark, "train", lambda work, steps, name, settings: trial(steps * benchmark.BATCH, name))
    monkeypatch.setattr(benchmark, "invert", lambda work, vectors, name: trial(vectors, name))


def test_jobs_that_are_a_line_are_planned_exactly(monkeypatch, tmp_path):
    follow(monkeypatch)
    found = plan_error(tmp_path)
    assert found["plan_error"] == 0
    assert found["encode"]["planned_seconds"] == pytest.approx(10 + 2 + 12.288, abs=0.05)
    assert found["train"]["units"] == 1200 * 64


def test_the_error_is_a_share_of_what_was_measured_and_the_largest_counts(monkeypatch, tmp_path):
    follow(monkeypatch, slower=2.0)
    found = plan_error(tmp_path, stages=("encode", "train"))
    work = 2 + 12.288
    assert found["encode"]["error"] == pytest.approx(work / (10 + 2 * work), abs=1e-3)
    assert found["plan_error"] == max(found["encode"]["error"], found["train"]["error"])
    assert "invert" not in found


def test_a_stage_without_those_before_it_and_a_folder_in_use_are_refused(tmp_path):
    with pytest.raises(ValueError, match="stages train: each needs those before it"):
        plan_error(tmp_path / "new", stages=("train",))
    (tmp_path / "texts-large").mkdir()
    with pytest.raises(ValueError, match="is not empty"):
        plan_error(tmp_path)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_small_sizes_are_still_whole_windows_of_every_worker(workers):
    for share in (0.01, 0.25, 1.0):
        sizes = Sizes().scaled(share, workers)
        for name, step in (("encode", workers * WINDOW), ("train", 4), ("invert", 2 * workers * VECTORS)):
            found = getattr(sizes, name)
            assert all(size % step == 0 for size in found) and found[0] < found[1] < found[2]
        assert sizes.scaled(1.0, workers) == sizes


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_smallest_inversion_has_windows_to_be_timed_by_on_any_number_of_cores(workers):
    vectors = Sizes().scaled(0.01, workers).invert[0]
    each = 3.0  # seconds a worker takes for a window; they write at the same time, after a start of 20
    written = [(20 + each * (1 + place // workers), VECTORS) for place in range(vectors // VECTORS)]
    assert seconds_of_all(written, workers) == pytest.approx(each * vectors / VECTORS / workers)
