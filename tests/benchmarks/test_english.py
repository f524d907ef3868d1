"""benchmarks/english.py: pairs are made once by the jobs, and records stand in for an absent corpus."""

import pytest

from benchmarks import english
from embinv.config import load_config
from embinv.encoders.hashing import HashEncoder
from jobs.outputs import SUCCESS_FILE
from tests.fakes import pairs_of, sentences, write_pairs


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """The jobs that were run, each by its arguments; of the config's pairs they make a few, of words and hashes."""
    ran = []

    def job(name, out, arguments):
        ran.append((name, *arguments))
        if name == "encode":
            [length] = (part for part in arguments if part.startswith("data.seq_len="))
            config = load_config(english.ROOT / english.CONFIG, [length])
            tokenizer = config.open_tokenizer()
            few = pairs_of(sentences(3), tokenizer, HashEncoder(config.encoder), config.data.seq_len)
            write_pairs(out, config.pairs_recipe(tokenizer), few)
        out.mkdir(exist_ok=True)
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
    assert english.is_real_text(first) is True
    assert english.is_real_text(tmp_path / "mine" / "english") is None


def test_pairs_that_the_config_would_no_longer_make_are_refused(monkeypatch, tmp_path, jobs):
    monkeypatch.setattr(english, "CORPUS", tmp_path / "english.parquet")
    english.CORPUS.touch()
    english.english_pairs(16, 500)
    other = (english.ROOT / english.CONFIG).read_text(encoding="utf-8").replace("dim: 384", "dim: 128")
    (tmp_path / "other.yaml").write_text(other, encoding="utf-8")
    monkeypatch.setattr(english, "CONFIG", str(tmp_path / "other.yaml"))
    with pytest.raises(ValueError, match=r"encoder\.dim: 384 != 128; remove .*pairs-L16-500 to have it made again"):
        english.english_pairs(16, 500)


def test_records_stand_in_for_an_absent_corpus_and_it_is_said(monkeypatch, tmp_path, jobs, capsys):
    monkeypatch.setattr(english, "CORPUS", tmp_path / "absent.parquet")
    folder = english.english_pairs(16, 10**6)
    assert folder.parent.name == "records"
    assert english.is_real_text(folder) is False
    assert jobs[0] == ("corpus", "--texts", "records", "--rows", str(english.RECORDS))
    assert f"data.validation={english.RECORDS_HELD_OUT}" in jobs[1]
    assert "synthetic records" in capsys.readouterr().err


def test_a_job_that_fails_is_told_with_its_exit_code(monkeypatch, tmp_path):
    monkeypatch.setattr(english, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(english, "CONFIG", str(tmp_path / "absent.yaml"))
    with pytest.raises(ValueError, match=r"jobs/corpus.py ended with 2"):
        english.english_pairs(16, 500)
