"""provenance.json: a sitting after the other, whole, and never in the way of a run."""

import json
import sys
from datetime import datetime

import pytest

from embinv.provenance import sittings
from embinv.provenance.sittings import (
    PROVENANCE_FILE,
    begin_sitting,
    differences,
    end_sitting,
    new_sitting,
    read_provenance,
    seeds_in,
    with_sitting,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / PROVENANCE_FILE


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))["sittings"]


def test_a_sitting_says_what_ran_where_and_with_what(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jobs/train.py", "--data", "my pairs", "--set", "encoder.api_key=abc"])
    settings = {"training": {"seed": 7, "steps": 3}, "data": {"seed": 1}}
    begin_sitting(path, "jobs/train.py", settings, {"hosts": 2})
    [only] = read(path)
    assert only["job"] == "jobs/train.py"
    assert only["command"] == "jobs/train.py --data 'my pairs' --set 'encoder.api_key=***'"
    assert only["settings"] == settings and only["seeds"] == {"training.seed": 7, "data.seed": 1}
    assert only["cluster"] == {"hosts": 2} and only["ended"] is None
    assert {"python", "torch", "ray", "transformers", "deepspeed", "pyarrow"} <= only["versions"].keys()
    assert only["machine"]["cpu"] and only["machine"]["cores"] >= 1 and isinstance(only["machine"]["gpus"], list)
    assert datetime.fromisoformat(only["began"]).tzinfo is not None


def test_the_end_is_noted_on_the_last_sitting_of_the_job(path):
    for job in ("train", "train", "evaluate"):
        begin_sitting(path, job)
    end_sitting(path, "train")
    assert [each["ended"] is not None for each in read(path)] == [False, True, False]


def test_another_version_in_a_later_sitting_is_told(path, monkeypatch):
    begin_sitting(path, "train")
    monkeypatch.setattr(sittings, "versions", lambda: {**read(path)[0]["versions"], "torch": "9.9"})
    begin_sitting(path, "train")
    first, second = read(path)
    assert "differs" not in first
    assert second["differs"] == {"versions.torch": [first["versions"]["torch"], "9.9"]}


def test_times_settings_and_commands_are_no_difference_of_what_it_ran_on():
    before, now = new_sitting("a", {"x": 1}, command=["a"]), new_sitting("b", {"x": 2}, command=["b"])
    assert differences(before, now) == {}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sittings": 3}', '{"sittings": [1]}', "\x00\x00"])
def test_a_damaged_file_stops_no_run_and_is_not_lost(path, damage):
    path.parent.mkdir()
    path.write_text(damage)
    begin_sitting(path, "train")
    assert len(read(path)) == 1
    assert json.loads(path.read_text())["unreadable"] == damage


def test_ending_what_is_not_there_does_nothing(path):
    end_sitting(path, "train")
    assert read_provenance(path) is None and not path.parent.exists()


def test_nothing_but_the_file_is_left(path):
    begin_sitting(path, "train")
    end_sitting(path, "train")
    assert [each.name for each in path.parent.iterdir()] == [PROVENANCE_FILE]


def test_a_text_of_many_sittings_holds_each_in_order():
    text = None
    for number in range(3):
        text = with_sitting(text, {"job": str(number)})
    assert [each["job"] for each in json.loads(text)["sittings"]] == ["0", "1", "2"]


def test_seeds_are_found_wherever_they_stand():
    assert seeds_in({"seed": 1, "a": {"seed": 2, "b": {"seed": 3}}, "seeds": 4}) == {
        "seed": 1,
        "a.seed": 2,
        "a.b.seed": 3,
    }


def test_a_change_of_versions_is_said_at_once_and_one_of_the_machine_is_only_kept(caplog):
    before, now = new_sitting("train"), new_sitting("train")
    now["versions"] = now["versions"] | {"ray": "9.9"}
    now["machine"] = now["machine"] | {"cores": 999}
    with caplog.at_level("INFO"):
        text = with_sitting(with_sitting(None, before), now)
    assert caplog.messages == [f"since the sitting before: versions.ray {before['versions']['ray']} -> 9.9"]
    assert json.loads(text)["sittings"][1]["differs"].keys() == {"versions.ray", "machine.cores"}
