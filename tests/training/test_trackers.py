"""embinv/training/trackers.py: which open, what TensorBoard shows after a resume, and what one that fails costs."""

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from embinv.training import trackers
from embinv.training.settings import TrainingSettings
from embinv.training.trackers import TRACKERS, Kind, Trackers, require_trackers
from embinv.training.tracking import TrackedRun


def tracked(folder, step=0):
    return TrackedRun(folder, "tiny", {"training": {"seed": 0}}, step)


@pytest.fixture
def no_keys(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


# --- which ones


def test_settings_name_the_trackers_that_there_are_and_tensorboard_is_the_default():
    field = TrainingSettings.model_json_schema()["properties"]["trackers"]
    assert sorted(field["items"]["enum"]) == sorted(TRACKERS)
    assert TrainingSettings().trackers == ["tensorboard"]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    with pytest.raises(ValueError, match=rf"training\.trackers names {name}, .* run `pip install 'embinv\[{name}\]'`"):
        require_trackers(["tensorboard", name])
    require_trackers(["tensorboard"])


def test_wandb_without_a_key_is_refused_before_anything_starts(monkeypatch, no_keys, tmp_path):
    with pytest.raises(ValueError, match="WANDB_API_KEY, or WANDB_MODE=offline"):
        require_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match="WANDB_API_KEY"):
        require_trackers(["wandb"])
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    require_trackers(["wandb"])
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    require_trackers(["wandb"])


# --- TensorBoard


def board(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_figures_and_texts(tmp_path):
    shown = Trackers(["tensorboard"], tracked(tmp_path), pytest.fail)
    shown.scalars(5, {"train/loss": 2.5, "train/gradient_norm": float("nan"), "train/utilisation": None})
    shown.table(5, "examples", ["original", "recovered"], [["a|b", "a"]])
    shown.picture(5, "training", tmp_path / "absent.png")
    shown.close(finished=True)
    events = board(tmp_path)
    assert events.Tags()["scalars"] == ["train/loss"]
    assert points(events, "train/loss") == [(5, 2.5)]
    [text] = events.Tensors("examples/text_summary")
    said = make_ndarray(text.tensor_proto).item().decode()
    assert (text.step, said) == (5, "| original | recovered |\n|---|---|\n| a\\|b | a |")


def test_points_outlive_a_process_that_is_killed(tmp_path):
    shown = Trackers(["tensorboard"], tracked(tmp_path), pytest.fail)
    shown.scalars(1, {"train/loss": 3.0})  # and nothing is closed
    assert points(board(tmp_path), "train/loss") == [(1, 3.0)]


def test_steps_that_a_crash_took_back_are_not_doubled(tmp_path):
    first = Trackers(["tensorboard"], tracked(tmp_path), pytest.fail)
    for step in (10, 20, 30):
        first.scalars(step, {"train/loss": float(step)})
    second = Trackers(["tensorboard"], tracked(tmp_path, step=20), pytest.fail)
    for step in (25, 30, 40):
        second.scalars(step, {"train/loss": -float(step)})
    second.close(finished=True)
    assert points(board(tmp_path), "train/loss") == [(10, 10.0), (20, 20.0), (25, -25.0), (30, -30.0), (40, -40.0)]


# --- one that fails


class Fragile:
    """A tracker that answers only while it is `up`, and tells what it was told."""

    failures = (OSError,)

    def __init__(self, up=True):
        self.up, self.calls, self.asked = up, [], 0

    def told(self, what):
        self.asked += 1
        if not self.up:
            raise ConnectionError("gone\naway")
        self.calls.append(what)

    def scalars(self, step, values):
        self.told(step)

    def table(self, step, name, columns, rows):
        self.told(name)

    def close(self, finished):
        self.told(finished)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(trackers.time, "monotonic", lambda: now[0])
    return now


def opening(monkeypatch, name, open_it):
    monkeypatch.setitem(trackers.TRACKERS, name, Kind("json", "pip install it", open_it))


def refused(run):
    raise ConnectionError("nobody answers")


def test_tracker_that_fails_gets_all_of_it_later_in_its_order_and_the_others_go_on(monkeypatch, tmp_path, clock):
    fragile, sound, said = Fragile(), Fragile(), []
    opening(monkeypatch, "mlflow", lambda run: fragile)
    opening(monkeypatch, "tensorboard", lambda run: sound)
    together = Trackers(["mlflow", "tensorboard", "mlflow"], tracked(tmp_path), said.append)
    together.scalars(1, {"a": 1.0})
    fragile.up = False
    for step in range(2, 100):  # an outage of some minutes, in which it is asked twice
        clock[0] = 4.0 * step
        together.scalars(step, {"a": 1.0})
    together.table(99, "examples", ["id"], [])
    assert (fragile.calls, fragile.asked) == ([1], 3)
    assert said == [
        "training.trackers: mlflow failed (gone away); its updates are kept, and it is tried again every 5 minutes"
    ]
    fragile.up = True
    together.scalars(100, {"a": 1.0})
    assert fragile.asked == 3  # not before its time
    clock[0] = 1000.0
    together.scalars(101, {"a": 1.0})
    together.close(finished=False)
    together.close(finished=True)
    assert fragile.calls == sound.calls == [*range(1, 100), "examples", 100, 101, False]
    assert said[1:] == ["training.trackers: mlflow answers again, and has all that was kept for it"]


def test_end_of_a_run_is_one_more_try_and_what_was_not_sent_is_counted(monkeypatch, tmp_path, clock):
    opening(monkeypatch, "mlflow", lambda run: fragile)
    for up in (True, False):
        fragile, said = Fragile(up=False), []
        together = Trackers(["mlflow"], tracked(tmp_path), said.append)
        together.scalars(1, {"a": 1.0})
        fragile.up = up
        together.close(finished=True)
        assert fragile.calls == ([1, True] if up else [])
        last = "answers again, and has all that was kept for it" if up else "was not sent 2 update(s)"
        assert said[1:] == [f"training.trackers: mlflow {last}"]


def test_tracker_that_is_never_there_again_is_left_behind_after_a_while(monkeypatch, tmp_path, clock):
    fragile, said = Fragile(up=False), []
    opening(monkeypatch, "mlflow", lambda run: fragile)
    together = Trackers(["mlflow"], tracked(tmp_path), said.append)
    for step in range(1000):
        clock[0] = 100.0 * step
        together.scalars(step, {"a": 1.0})
    together.close(finished=True)
    assert fragile.asked == trackers.TRIES
    assert said[1:] == ["training.trackers: mlflow failed (gone away) 24 times in a row; going on without it"]


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch, tmp_path, clock):
    fragile = Fragile(up=False)
    monkeypatch.setattr(trackers, "KEPT", 5)
    opening(monkeypatch, "mlflow", lambda run: fragile)
    together = Trackers(["mlflow"], tracked(tmp_path), lambda line: None)
    for step in range(20):
        together.scalars(step, {"a": 1.0})
    fragile.up, clock[0] = True, 1000.0
    together.scalars(20, {"a": 1.0})
    assert fragile.calls == [16, 17, 18, 19, 20]


def test_our_own_mistake_is_not_taken_for_a_failing_service(monkeypatch, tmp_path):
    broken = Fragile()
    broken.scalars = lambda step, values: values["absent"]
    opening(monkeypatch, "mlflow", lambda run: broken)
    with pytest.raises(KeyError):
        Trackers(["mlflow"], tracked(tmp_path), pytest.fail).scalars(1, {})


def test_tracker_that_cannot_be_opened_refuses_a_new_run_and_not_one_that_goes_on(monkeypatch, tmp_path, clock):
    opening(monkeypatch, "mlflow", refused)
    with pytest.raises(ValueError, match=r"training\.trackers: mlflow cannot be opened \(nobody answers\); see to its"):
        Trackers(["mlflow"], tracked(tmp_path), pytest.fail)
    said = []
    going_on = Trackers(["mlflow"], tracked(tmp_path, step=7), said.append)
    going_on.scalars(8, {"a": 1.0})
    assert said == [
        "training.trackers: mlflow cannot be opened (nobody answers); its updates are kept, and it is tried again "
        "every 5 minutes"
    ]
    back = Fragile()
    opening(monkeypatch, "mlflow", lambda run: back)
    clock[0] = 1000.0
    going_on.scalars(9, {"a": 1.0})
    assert back.calls == [8, 9]
