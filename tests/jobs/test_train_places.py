"""jobs/train_places.py: workers for which there is no place are told of before a run waits for them."""

import pytest
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState

from embinv.training.settings import TrainingSettings
from jobs.train import train
from jobs.train_places import Waiting, require_places, resources_of


def places(workers, device="cpu"):
    return TrainingSettings(workers=workers, device=device)


@pytest.fixture
def nodes(monkeypatch):
    """Returns a function that sets the resources of a cluster's nodes; a dead one is always there."""

    def of(*resources):
        found = [{"Alive": True, "Resources": each} for each in resources]
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        monkeypatch.setattr("jobs.pool.ray.nodes", lambda: [*found, dead])

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return of


@pytest.mark.parametrize(
    ("resources", "settings"),
    [
        ([{"CPU": 2.0}], places(2)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], places(2)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 4.0}], places(3, "cuda")),
    ],
)
def test_workers_with_a_place_are_not_spoken_of(nodes, resources, settings, capsys):
    nodes(*resources)
    require_places(settings)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("resources", "settings", "said"),
    [
        (
            [{"CPU": 2.0}],
            places(3),
            r"cpu with 3 worker\(s\), but this machine has 2 CPU\(s\); set training.workers",
        ),
        (
            [{"CPU": 2.0}],
            places(1, "cuda"),
            r"has 0 GPU\(s\) with a CPU each; .* that, or training.device cpu",
        ),
        ([{"CPU": 1.0, "GPU": 4.0}], places(2, "cuda"), r"has 1 GPU\(s\) with a CPU each"),
        ([{}, {"CPU": 4.0}, {"GPU": 4.0}], places(1, "cuda"), r"has 0 GPU\(s\)"),  # together on one node, or not at all
    ],
)
def test_a_machine_of_its_own_never_grows(nodes, resources, settings, said):
    nodes(*resources)
    with pytest.raises(ValueError, match=said):
        require_places(settings)


def test_gpus_of_another_kind_are_no_places(nodes):
    wanted = TrainingSettings(workers=1, device="cuda", accelerator="H100")
    nodes({"CPU": 8.0, "GPU": 8.0, "accelerator_type:T4": 1.0})
    with pytest.raises(ValueError, match=r"has 0 GPU\(s\) of kind H100 with a CPU each"):
        require_places(wanted)
    nodes({"CPU": 8.0, "GPU": 8.0, "accelerator_type:H100": 1.0})
    require_places(wanted)


def test_a_cluster_is_waited_for_aloud(nodes, monkeypatch, capsys):
    nodes({"CPU": 2.0})
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    require_places(places(8))
    said = capsys.readouterr().out
    assert said == "waiting until the Ray cluster, which has 2 CPU(s), has grown to 8\n"


def test_a_run_without_places_is_refused_before_anything_is_written(ray_cluster, tiny, tiny_pairs, tmp_path):
    for settings in (("training.workers=64", "training.batch_size=64"), ("training.device=cuda",)):
        with pytest.raises(ValueError, match=r"set training\.workers"):
            train(tiny(*settings), tiny_pairs, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_waiting_for_places_during_a_run_is_noted_once_until_they_come(tmp_path):
    log = tmp_path / "train.log"
    waiting = Waiting(log, 3, resources_of(places(3, "cuda")))
    again = ReschedulingState(ControllerError(WorkerGroupStartupTimeoutError(3)))
    line = "waiting: no place yet for 3 worker(s) of 1 CPU and 1 GPU each; is the Ray cluster short of a node?\n"
    for state, lines in ((RunningState(), 0), (again, 1), (again, 1), (RunningState(), 1), (again, 2)):
        waiting.after_controller_state_update(state, state)
        assert (log.read_text() if log.exists() else "") == line * lines
