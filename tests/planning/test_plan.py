"""Whole plans from measurements: whose they may be, and what they leave open."""

import pytest

from embinv.planning.plan import make_plan
from embinv.planning.runs import settings_of
from embinv.planning.throughput import UNTOLD, Throughput
from tests.planning.loads import workload

LAPTOP = workload("minilm", ["model.size=tiny"])


def planned(load, throughput, gpu="cpu"):
    return make_plan(load, gpu, (throughput.stage,), {throughput.stage: (throughput, "--measured F")})


def measured(stage, load=LAPTOP, gpu="cpu", **more):
    of = settings_of(stage, load.config.model_dump(mode="json")) | more
    return Throughput(stage, 1.0, 0.001, 1, gpu, "a test", of=of)


@pytest.mark.parametrize("stage", ["train", "invert"])
def test_a_small_inverter_says_nothing_about_a_large_one(stage):
    assert planned(LAPTOP, measured(stage)).stages[0].limit == "measured"
    for sets, sentence in (
        (["model.size=base"], "model.size = 'tiny', and the plan has 'base'; .*--set model.size=tiny"),
        (["model.size=tiny", "model.layers=9"], "model.layers = None, and the plan has 9; .*--set model.layers=null"),
        (["model.size=tiny", "data.seq_len=128"], "data.seq_len = 28, and the plan has 128"),
        (["model.size=tiny", "model.family=t5"], "model.family = 'mdlm', and the plan has 't5'"),
    ):
        with pytest.raises(ValueError, match=f"^--measured F: {stage} was measured with {sentence}"):
            planned(workload("minilm", sets), measured(stage))
    with pytest.raises(
        ValueError, match=r"--measured F: .* was measured with model.family = 'mdlm', and the plan has 't5'"
    ):
        planned(workload("qwen3-8b"), measured(stage))


def test_passes_of_an_inversion_are_its_work():
    with pytest.raises(ValueError, match="was measured with passes = 4, and the plan has 8; .*or give --passes 4"):
        planned(LAPTOP, measured("invert", passes=4))


def test_a_batch_that_is_given_has_to_be_the_measured_one_and_an_open_one_becomes_it():
    found = measured("train", **{"training.batch_size": 256})
    with pytest.raises(
        ValueError, match=r"training.batch_size = 256, and the plan has 64; .*--set training.batch_size=256"
    ):
        planned(LAPTOP, found)
    open_one = workload("minilm", ["model.size=tiny", "training.batch_size=null"], steps=100)
    assert planned(open_one, found).stages[0].units == 100 * 256


def test_a_record_that_leaves_the_hardware_open_is_told_as_such():
    untold = Throughput("invert", 0.0, 0.1, 1, UNTOLD, "a test", of={"passes": 8})
    assert any("neither GPUs nor the inverter's size" in each for each in planned(LAPTOP, untold, "h100").warnings)
    some = measured("invert", gpu="cuda")
    assert any("does not name the kind of GPU" in each for each in planned(LAPTOP, some, "h100").warnings)
    assert planned(LAPTOP, measured("invert", gpu="h100"), "h100").warnings == ()
