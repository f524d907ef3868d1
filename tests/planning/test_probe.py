"""A trial of real models on this machine, small: seconds that are measured, and what a plan makes of them."""

from types import SimpleNamespace

import pytest

from embinv.planning.accelerators import accelerator
from embinv.planning.inverter_size import inverter_size
from embinv.planning.loads import part_of
from embinv.planning.plan import make_plan
from embinv.planning.probe import probe, records_of, time_training, timed_twice
from embinv.planning.training import resolved_settings, save_part
from tests.planning.loads import workload


def test_a_trial_is_made_at_two_sizes():
    asked = []
    (few, _), (more, _) = timed_twice(asked.append, 16, seconds=1e-9)
    assert few < more and set(asked) == {few, more}


def test_texts_are_as_long_as_asked_for():
    texts = records_of(5, tokens=50)
    assert len(set(texts)) == 5 and all(abs(len(text) - 200) <= 1 for text in texts)


def test_no_gpu_here_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^--measure: this machine has no CUDA device to measure l4 on"):
        probe(workload("minilm"), ("encode",), "cuda", "l4", 1.0)


def test_another_gpu_than_the_plans_is_not_measured_in_its_name(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda place: SimpleNamespace(total_memory=79.1 * 2**30))
    with pytest.raises(
        ValueError, match=r"^--measure: .* H100 80GB HBM3 of 79 GiB, and --gpu is a100-40g; .*--gpu h100,"
    ):
        probe(workload("minilm"), ("encode",), "cuda", "a100-40g", 1.0)


def test_a_trial_of_training_has_a_validation_and_a_save(monkeypatch):
    monkeypatch.setattr("embinv.training.loop.PROGRESS_EVERY", 0.01)
    sets = ["model.size=tiny", "training.batch_size=4", "training.validation_rows=8", "training.validation_steps=1"]
    load = workload("minilm", sets, assume=["storage_mb=1"], vocabulary=50)
    found = time_training(load, "cpu", 0.01)
    settings = resolved_settings(load, accelerator("l4")).model_copy(update={"precision": "float32"})
    save = save_part(load, inverter_size(load.config, 50), settings)
    assert found.per_validation > save.expected > 1 and save.note in found.what


@pytest.mark.slow
def test_every_stage_of_a_config_is_measured_and_planned():
    load = workload("minilm", ["model.size=tiny"], rows=5000, vectors=5000, vocabulary=600, steps=50)
    found = probe(load, ("encode", "train", "invert"), "cpu", "cpu", seconds=1.0)
    assert [each.stage for each in found] == ["encode", "train", "invert"]
    assert all(each.per_unit > 0 and each.fixed >= 0 and each.gpu == "cpu" for each in found)
    plan = make_plan(load, "cpu", ("encode", "train", "invert"), {each.stage: (each, "--measure") for each in found})
    assert all(stage.limit == "measured" for stage in plan.stages)
    encode, train, _ = plan.stages
    assert part_of(train, "validate and save").expected > 0
    assert encode.seconds == pytest.approx(found[0].fixed + 5000 * found[0].per_unit)
