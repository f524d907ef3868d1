"""Lines through what was measured: exact where runs are a line, scaled by devices, refused where they do not apply."""

import json

import pytest

from embinv.planning.assumptions import assumed
from embinv.planning.throughput import (
    UNTOLD,
    Throughput,
    Trial,
    fit,
    plan_measured,
    read_measured,
    require_applies,
    throughput_of,
)

SLOW = Throughput("encode", fixed=12.0, per_unit=0.01, devices=1, gpu="cpu", source="a test", of={"data.seq_len": 32})


def test_two_sizes_give_the_start_and_the_rate():
    assert fit([(1000, 12 + 10), (3000, 12 + 30)]) == pytest.approx((12, 0.01))
    assert fit([(1000, 10.1), (2000, 19.9), (4000, 40)]) == pytest.approx((0.0, 0.01), abs=0.05)


def test_a_start_below_nothing_is_none():
    fixed, per_unit = fit([(100, 0.5), (1000, 9.9)])
    assert fixed == 0 and 0.0098 < per_unit < 0.0100


@pytest.mark.parametrize(
    ("points", "sentence"), [([(100, 1), (100, 2)], "different sizes"), ([(100, 9), (1000, 4)], "took no longer")]
)
def test_runs_that_say_nothing_about_growth_are_refused(points, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(points)


def test_small_runs_of_a_job_plan_a_large_one():
    trials = [Trial(1000, wall=14 + 3 + 10, work=3 + 10), Trial(3000, wall=16 + 3 + 30, work=3 + 30)]
    throughput = throughput_of("encode", trials, 1, "cpu", "two small runs")
    planned = plan_measured("encode", 12_000, "texts", throughput, 1, assumed()).seconds
    assert planned == pytest.approx(15 + 3 + 120)  # the mean of what was outside, and the line through the work


def test_devices_share_the_work_and_not_the_start():
    one, four = (plan_measured("encode", 8000, "texts", SLOW, gpus, assumed(["scaling=0.8"])) for gpus in (1, 4))
    assert one.seconds == pytest.approx(12 + 80)
    assert four.seconds == pytest.approx(12 + 80 / 4 / 0.8) and four.gpu_hours == pytest.approx(4 * four.seconds / 3600)
    assert plan_measured("encode", 0, "texts", SLOW, 1, assumed()).seconds == 12


def test_validations_are_counted_one_by_one():
    measured = Throughput("train", 10.0, 0.001, 1, "cpu", "a test", per_validation=5.0)
    assert plan_measured("train", 1000, "texts", measured, 1, assumed(), validations=4).seconds == 10 + 1 + 20
    assert measured.seconds(1000, 4) == 10 + 1 + 20


def test_validations_that_were_not_timed_are_left_out_by_name():
    plan = plan_measured("train", 1000, "texts", Throughput("train", 10.0, 0.001, 1, "cpu", "a test"), 1, assumed(), 4)
    assert plan.seconds == 11 and [part.name for part in plan.parts] == ["start", "train"]
    assert any("validations and saves" in note for note in plan.notes)


def test_what_was_measured_can_be_kept_and_read_again(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"measured": [SLOW.to_dict()]}))
    assert read_measured(tmp_path / "plan.json") == [SLOW]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"measured": []}', '{"measured": [{"stage": "encode"}]}', '{"measured": 3}', "[1]"]
)
def test_a_file_without_measurements_is_refused_by_its_flag(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"^--measured .*plan.json: holds no measurements"):
        read_measured(tmp_path / "plan.json")
    with pytest.raises(ValueError, match=r"^--measured .*absent.json: cannot be read"):
        read_measured(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "field",
    [
        {"per_unit": -1.0},
        {"per_unit": float("nan")},
        {"fixed": "12"},
        {"per_validation": None},
        {"devices": "x"},
        {"devices": 0},
        {"stage": "write"},
        {"stage": ["encode"]},
        {"gpu": 4},
        {"of": ["data.seq_len"]},
    ],
)
def test_what_cannot_be_is_no_measurement(tmp_path, field):
    (tmp_path / "plan.json").write_text(json.dumps({"measured": [SLOW.to_dict(), SLOW.to_dict() | field]}))
    with pytest.raises(ValueError, match=r"^--measured .*plan.json: holds no measurements, or such as cannot be"):
        read_measured(tmp_path / "plan.json")


def test_other_hardware_and_other_work_are_refused():
    require_applies(SLOW, "cpu", {"data.seq_len": 32}, "--from runs")
    with pytest.raises(ValueError, match=r"^--from runs: encode was measured on cpu, and --gpu is l4"):
        require_applies(SLOW, "l4", {}, "--from runs")
    with pytest.raises(ValueError, match=r"data.seq_len = 32, and the plan has 128; .*--set data.seq_len=32"):
        require_applies(SLOW, "cpu", {"data.seq_len": 128}, "--from runs")


@pytest.mark.parametrize(("gpu", "asked"), [("cuda", "a100-40g"), (UNTOLD, "a100-40g"), (UNTOLD, "cpu")])
def test_a_record_that_names_no_gpu_is_taken_at_the_plans_word(gpu, asked):
    require_applies(Throughput("invert", 0, 0.1, 1, gpu, "a test"), asked, {}, "--from runs")
