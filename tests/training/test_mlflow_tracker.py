"""embinv/training/mlflow_tracker.py against a real MLflow: the database that it keeps without a server."""

import json

import pytest

from embinv.training import mlflow_tracker
from embinv.training.mlflow_tracker import MLflowTracker, flattened
from embinv.training.trackers import Trackers
from embinv.training.tracking import TrackedRun

SETTINGS = {"name": "tiny", "training": {"seed": 0, "trackers": ["mlflow"]}, "model": {"deep": {"er": None}}}
MANY = {f"key{i}": i for i in range(130)}  # more than MLflow takes at once


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run of two sittings: the second one goes on from step 20 of 30."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("mlflow")
        patch.chdir(folder)
        picture = folder / "training.png"
        first = MLflowTracker(TrackedRun(folder, "tiny", {**SETTINGS, "many": MANY}, 0))
        for step in (10, 20, 30):
            first.scalars(step, {"train/loss": float(step), "loss_by_time/0.0-0.1": 1.0})
            picture.write_bytes(b"\x89PNG" + bytes([step]))
            first.picture(step, "training", picture)
        first.scalars(20, {"validation/accuracy_at_10%_mask": 0.5})
        assert first.client.get_run(first.run_id).data.metrics == {}  # they wait, and a table takes them along
        first.table(20, "examples", ["id", "original"], [["1", "a|b"]])
        status = [first.client.get_run(first.run_id).info.status]

        second = MLflowTracker(TrackedRun(folder, "tiny", SETTINGS, 20))
        assert second.run_id == first.run_id
        for step in (25, 30, 40):
            second.scalars(step, {"train/loss": -float(step), "train/new": 1.0})
        second.table(20, "examples", ["id", "original"], [["1", "a|b"]])
        second.close(finished=True)
        status.append(first.client.get_run(first.run_id).info.status)
        third = MLflowTracker(TrackedRun(folder, "tiny", SETTINGS, 40))
        status.append(first.client.get_run(first.run_id).info.status)
        third.close(finished=False)
        status.append(first.client.get_run(first.run_id).info.status)
        yield folder, third, status


def points(tracker, key):
    return [(point.step, point.value) for point in tracker.client.get_metric_history(tracker.run_id, key)]


def test_figures_of_both_sittings_are_in_one_run_and_none_is_doubled(tracked):
    _, tracker, _ = tracked
    assert points(tracker, "train/loss") == [(10, 10.0), (20, 20.0), (30, 30.0), (40, -40.0)]
    assert points(tracker, "train/new") == [(25, 1.0), (30, 1.0), (40, 1.0)]
    assert points(tracker, "loss_by_time/0.0-0.1") == [(10, 1.0), (20, 1.0), (30, 1.0)]
    assert points(tracker, "validation/accuracy_at_10 percent_mask") == [(20, 0.5)]


def test_figures_wait_for_some_seconds_and_go_together(tracked, monkeypatch):
    folder, _, _ = tracked
    now, sent = [0.0], []
    monkeypatch.setattr(mlflow_tracker.time, "monotonic", lambda: now[0])
    waiting = MLflowTracker(TrackedRun(folder, "tiny", SETTINGS, 0))
    monkeypatch.setattr(waiting.client, "log_batch", lambda run_id, metrics: sent.append([m.step for m in metrics]))
    for second in range(0, 25, 2):
        now[0] = float(second)
        waiting.scalars(100 + second, {"train/late": 1.0})
    assert sent == [[100, 102, 104, 106, 108], [110, 112, 114, 116, 118]]
    monkeypatch.setattr(mlflow_tracker, "METRICS_AT_ONCE", 1)
    waiting.table(124, "examples", ["id"], [])
    assert sent[2:] == [[120], [122], [124]]


def test_outage_costs_no_figure_and_doubles_none(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    now, said = [0.0], []
    monkeypatch.setattr(mlflow_tracker.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(mlflow_tracker, "METRICS_AT_ONCE", 2)
    together = Trackers(["mlflow"], TrackedRun(tmp_path, "tiny", SETTINGS, 0), said.append)
    [line] = together._lines.values()
    sends, send = [], line.tracker.client.log_batch

    def unsteady(run_id, metrics):
        sends.append(len(metrics))
        if len(sends) in (2, 5):  # the second time in the middle of what waits
            raise OSError("nobody answers")
        send(run_id, metrics=metrics)

    monkeypatch.setattr(line.tracker.client, "log_batch", unsteady)
    for step in range(100):
        now[0] = 10.0 * step
        together.scalars(step, {"a": float(step), "b": -float(step)})
    together.close(finished=True)
    for key, sign in (("a", 1), ("b", -1)):
        assert points(line.tracker, key) == [(step, float(sign * step)) for step in range(100)]
    assert [sentence.split()[2] for sentence in said] == ["failed", "answers", "failed", "answers"]
    known = json.loads((tmp_path / "mlflow-run.json").read_text())["last"]
    assert known == {"a": 99, "b": 99}


def test_settings_are_its_parameters(tracked):
    _, tracker, _ = tracked
    parameters = tracker.client.get_run(tracker.run_id).data.params
    assert parameters["training.seed"] == "0"
    assert parameters["model.deep.er"] == "None"
    assert {key: parameters[f"many.{key}"] for key in MANY} == {key: str(value) for key, value in MANY.items()}


def test_run_says_how_it_stands(tracked):
    _, tracker, status = tracked
    assert status == ["RUNNING", "FINISHED", "RUNNING", "FAILED"]
    assert tracker.client.get_run(tracker.run_id).info.run_name == "tiny"


def test_texts_and_the_plot_lie_in_the_runs_folder(tracked):
    folder, tracker, _ = tracked
    artifacts = folder / "mlflow-artifacts" / tracker.run_id / "artifacts"
    assert (artifacts / "examples" / "step-00000020.md").read_text() == "| id | original |\n|---|---|\n| 1 | a\\|b |"
    assert (artifacts / "training.png").read_bytes() == b"\x89PNG" + bytes([30])
    assert not (folder / "mlruns").exists()
    assert json.loads((folder / "mlflow-run.json").read_text())["id"] == tracker.run_id


def test_server_that_cannot_be_reached_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r"training\.trackers: mlflow cannot be opened \(.*127\.0\.0\.1"):
        Trackers(["mlflow"], TrackedRun(tmp_path, "tiny", {}, 0), pytest.fail)


def test_store_that_mlflow_refuses_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(ValueError, match=r"mlflow cannot be opened \(.*gopher"):
        Trackers(["mlflow"], TrackedRun(tmp_path, "tiny", {}, 0), pytest.fail)


def test_settings_are_flattened_by_section():
    assert dict(flattened({"a": {"b": {"c": 1}, "d": [2]}, "e": None})) == {"a.b.c": 1, "a.d": [2], "e": None}
