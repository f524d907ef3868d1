import math

from embinv.training.tracking import RunMemory, finite, markdown


def test_a_step_that_is_made_again_is_not_sent_again(tmp_path):
    memory = RunMemory(tmp_path / "run.json")
    assert memory.unseen(10, ["loss", "speed"]) == ["loss", "speed"]
    memory.note({"loss": 10, "speed": 10})
    assert memory.unseen(10, ["loss", "nelbo"]) == ["nelbo"]  # a validation comes after the progress of its step
    assert memory.unseen(20, ["loss"]) == ["loss"]
    memory.note({"loss": 20})
    again = RunMemory(tmp_path / "run.json")
    assert again.unseen(15, ["loss", "speed", "nelbo"]) == ["speed", "nelbo"]
    assert again.unseen(20, ["loss"]) == []
    assert again.unseen(21, ["loss"]) == ["loss"]


def test_a_point_that_was_not_sent_is_not_noted(tmp_path):
    memory = RunMemory(tmp_path / "run.json")
    assert memory.unseen(10, ["loss"]) == memory.unseen(10, ["loss"]) == ["loss"]
    assert RunMemory(tmp_path / "run.json").unseen(10, ["loss"]) == ["loss"]


def test_the_id_is_kept_for_later_sittings(tmp_path):
    path = tmp_path / "run.json"
    memory = RunMemory(path)
    assert memory.id is None
    memory.keep_id("abc")
    memory.note({"loss": 1})
    assert RunMemory(path).id == "abc"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_only_figures_that_have_a_value_are_shown():
    assert finite({"a": 1.0, "b": math.nan, "c": None, "d": math.inf, "e": 0}) == {"a": 1.0, "e": 0}


def test_texts_stay_in_their_cells():
    table = markdown(["id", "what|ever"], [["1", "a|b\nc"], ["2", ""]])
    assert table.splitlines() == ["| id | what\\|ever |", "|---|---|", "| 1 | a\\|b c |", "| 2 |  |"]
