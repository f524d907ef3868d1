"""The quarantine of a job: what is noted, once each, and when too many files are in it."""

import json

import numpy as np
import pytest

from jobs.rejects import FOLDER, RejectedRow, Rejects, clear, read_rejects, reject_file, reject_rows, require_few

ROWS = [RejectedRow(5, "one", "400 no"), RejectedRow(-7, "two", "400 no"), RejectedRow(9, "three", "NaN")]


def notes(out):
    return sorted((out / FOLDER).iterdir())


def test_a_file_is_noted_once_with_its_last_reason_in_one_line(tmp_path):
    reject_file(tmp_path / "out", "/data/a.parquet", "not\n  Parquet")
    reject_file(tmp_path / "out", "/data/a.parquet", "Couldn't  read\nits footer")
    assert len(notes(tmp_path / "out")) == 1
    assert read_rejects(tmp_path / "out").files == {"/data/a.parquet": "Couldn't read its footer"}


def test_files_of_one_name_in_two_folders_are_two_notes(tmp_path):
    reject_file(tmp_path, "/data/1/a.parquet", "no")
    reject_file(tmp_path, "/data/2/a.parquet", "no")
    assert read_rejects(tmp_path).files == {"/data/1/a.parquet": "no", "/data/2/a.parquet": "no"}


def test_rows_are_kept_with_text_and_reason_one_json_a_line(tmp_path):
    reject_rows(tmp_path / "out", ROWS)
    [note] = notes(tmp_path / "out")
    assert note.name.startswith("rows-") and note.suffix == ".jsonl"
    lines = note.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [
        {"id": 5, "text": "one", "reason": "400 no"},
        {"id": -7, "text": "two", "reason": "400 no"},
        {"id": 9, "text": "three", "reason": "NaN"},
    ]


@pytest.mark.parametrize("text", ["", 'a "b"\n\r\n\tc', "a\u2028b\u2029c\x85d\x0be", "köln 日本 🙂", "\x00", "\ufeff"])
def test_any_text_comes_back_as_it_was(tmp_path, text):
    reject_rows(tmp_path, [RejectedRow(1, text, "no"), RejectedRow(2, "x", "no")])
    [note] = notes(tmp_path)
    lines = note.read_bytes().decode("utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == [text, "x"]
    assert read_rejects(tmp_path).rows == {1: "no", 2: "no"}


def test_a_batch_that_is_tried_again_counts_once(tmp_path):
    reject_rows(tmp_path, ROWS)
    reject_rows(tmp_path, ROWS)
    reject_rows(tmp_path, ROWS[:2])  # in another cut, as after a crash
    assert len(notes(tmp_path)) == 2
    assert read_rejects(tmp_path).reasons() == {"400 no": 2, "NaN": 1}


def test_reasons_stand_by_their_number():
    assert list(Rejects({}, {1: "a", 2: "b", 3: "b"}).reasons().items()) == [("b", 2), ("a", 1)]


def test_what_was_cleared_is_forgotten_and_nothing_is_no_mistake(tmp_path):
    reject_file(tmp_path, "/data/a.parquet", "no")
    reject_rows(tmp_path, ROWS)
    clear(tmp_path)
    assert read_rejects(tmp_path) == Rejects({}, {})
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bad", "files", "allowed"), [(0, 1, 0.0), (1, 10, 0.1), (10, 10, 1.0)])
def test_as_many_files_as_are_allowed_may_be_unreadable(bad, files, allowed):
    require_few(Rejects({f"{i}.parquet": "no" for i in range(bad)}, {}), files, allowed)


@pytest.mark.parametrize(("bad", "files", "allowed"), [(1, 1, 0.0), (2, 10, 0.1), (1, 9, 0.1)])
def test_more_end_the_job_with_each_file_its_reason_and_the_fix(bad, files, allowed):
    rejects = Rejects({f"/data/{i}.parquet": f"reason {i}" for i in range(bad)}, {})
    with pytest.raises(
        ValueError, match=rf"{bad} of {files} input files .* data\.max_rejected \({allowed:g}\)"
    ) as caught:
        require_few(rejects, files, allowed)
    for i in range(bad):
        assert f"/data/{i}.parquet (reason {i})" in str(caught.value)
    assert "raise data.max_rejected" in str(caught.value)


def test_rejected_rows_do_not_count_as_files():
    require_few(Rejects({}, dict.fromkeys(range(100), "no")), 1, 0.0)


def test_reasons_that_differ_in_a_number_are_one_but_a_status_stays():
    rejects = Rejects({}, {1: "400 text of 513 tokens", 2: "400 text of 9000 tokens", 3: "413 text of 9000 tokens"})
    assert rejects.reasons() == {"400 text of # tokens": 2, "413 text of # tokens": 1}


def test_rows_that_were_encoded_after_all_are_not_counted():
    rejects = Rejects({"a": "broken"}, {1: "a", 2: "b", 3: "b"})
    assert rejects.without(np.array([2, 7])) == Rejects({"a": "broken"}, {1: "a", 3: "b"})
