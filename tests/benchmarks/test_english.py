"""benchmarks/english.py: pairs are made once by the jobs, and records stand in for an absent corpus."""

import pytest

from benchmarks import english
from jobs.outputs import SUCCESS_FILE


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """The jobs that were run, each by its arguments; they leave nothing but the mark that they are done."""
    ran = []

    def job(name, out, arguments):
        ran.append((name, *arguments))
        out.mkdir()
        (out / SUCCESS_FILE).touch()

    monkeypatch.setattr(english, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(english, "_job", job)
    return ran


def test_pairs_are_made_once_for_each_length(monkeypatch, tmp_path, jobs):
    monkeypatch.setattr(english, "CORPUS", tmp_path / "english.parquet")
    english.CORPUS.touch()
    first = english.english_pairs(16, 500)
    assert [(job[0], job[-1]) for job in jobs] == [("corpus", "500"), ("encode", "data.seq_len=16")]
    assert first.parent == tmp_path / "runs" / "english"
    assert english.english_pairs(16, 500) == first
    assert english.english_pairs(32, 500) != first
    assert [job[0] for job in jobs] == ["corpus", "encode", "encode"]  # the texts were there


def test_records_stand_in_for_an_absent_corpus_and_it_is_said(monkeypatch, tmp_path, jobs, capsys):
    monkeypatch.setattr(english, "CORPUS", tmp_path / "absent.parquet")
    folder = english.english_pairs(16, 10**6)
    assert folder.parent.name == "records"
    assert jobs[0] == ("corpus", "--texts", "records", "--rows", str(english.RECORDS))
    assert f"data.validation={english.RECORDS_HELD_OUT}" in jobs[1]
    assert "synthetic records" in capsys.readouterr().err


def test_a_job_that_fails_is_told_with_its_exit_code(monkeypatch, tmp_path):
    monkeypatch.setattr(english, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(english, "CONFIG", str(tmp_path / "absent.yaml"))
    with pytest.raises(ValueError, match=r"jobs/corpus.py ended with 2"):
        english.english_pairs(16, 500)
