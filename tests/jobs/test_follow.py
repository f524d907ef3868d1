import time

import pytest

import jobs.follow
from jobs.follow import followed


def write(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_lines_are_shown_once_in_order_and_only_new_ones(tmp_path, capsys):
    log = tmp_path / "train.log"
    write(log, "of an earlier run\n")
    with followed(log):
        write(log, "one\ntwo\n")
        write(log, "three, höher\n")
    assert capsys.readouterr().out == "one\ntwo\nthree, höher\n"
    assert log.read_text() == "of an earlier run\none\ntwo\nthree, höher\n"


def test_lines_are_shown_while_the_block_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs.follow, "EVERY", 0.01)
    with followed(tmp_path / "train.log"):
        write(tmp_path / "train.log", "early\n")
        deadline, shown = time.monotonic() + 5, ""
        while "early" not in shown and time.monotonic() < deadline:
            time.sleep(0.01)
            shown += capsys.readouterr().out
        assert shown == "early\n"
    assert capsys.readouterr().out == ""


def test_a_line_that_is_written_in_pieces_stays_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs.follow, "EVERY", 0.01)
    with followed(tmp_path / "train.log"):
        for piece in ("half ", "and half", "\n"):
            write(tmp_path / "train.log", piece)
            time.sleep(0.05)
    assert capsys.readouterr().out == "half and half\n"


def test_what_is_written_last_is_shown_though_the_block_fails(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), followed(tmp_path / "train.log"):
        write(tmp_path / "train.log", "the reason\n")
        raise ZeroDivisionError
    assert capsys.readouterr().out == "the reason\n"


def test_what_is_written_at_once_is_shown(tmp_path, capsys):
    for run in range(20):
        log = tmp_path / f"{run}.log"
        with followed(log):
            write(log, "at once\n")
    assert capsys.readouterr().out == "at once\n" * 20
