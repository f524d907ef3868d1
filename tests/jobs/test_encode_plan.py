"""`jobs/encode.py --dry-run`: what it says, that it writes nothing, and that the job then does as was said."""

import re

import pyarrow.parquet as pq
import pytest

import jobs.encode_plan
from embinv.data.alignment import align
from embinv.data.tokenizer import TextTokenizer
from jobs.encode import main, make_pairs, read_corpus, recipe_of
from jobs.encode_pipeline import Job
from jobs.encode_plan import plan_encoding, plan_text
from tests.fakes import MINILM

pytestmark = pytest.mark.usefixtures("ray_cluster")

ROWS = 2000
HASHED = ("encoder.kind=hash", "encoder.model=hash", f"data.tokenizer={MINILM}", "data.min_tokens=16")


@pytest.fixture(scope="module")
def corpus(write_texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan") / "texts"
    return folder, write_texts(folder, ROWS, shard_rows=700)


@pytest.fixture(scope="module")
def plan_of(corpus, tmp_path_factory):
    """Returns a function that plans the encoding of `corpus`."""

    def plan(config):
        scratch = tmp_path_factory.mktemp("scratch")
        return plan_encoding(Job(config, recipe_of(config), scratch, scratch), *read_corpus(corpus[0]))

    return plan


@pytest.fixture(scope="module")
def hashed(minilm, plan_of):
    config = minilm(*HASHED, "data.validation=0.02", "data.test=0.05")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.encode_plan, "TRIAL_SECONDS", 0.1)
        return config, plan_of(config)


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_known_is_said_exactly(hashed):
    _, plan = hashed
    assert plan["languages"] == {"en": ROWS}
    assert plan["texts"] == ROWS
    assert plan["input_files"] == 3
    assert plan["output_files"] == 3 * 3  # windows x splits
    assert plan["trial_rows"] == 200
    assert (plan["workers"], plan["device"]) == (1, "cpu")


def test_rows_and_bytes_are_those_of_the_job_within_a_few_percent(hashed, corpus, tmp_path):
    config, plan = hashed
    stats = make_pairs(config, corpus[0], tmp_path / "pairs")
    files = list((tmp_path / "pairs").rglob("*.parquet"))
    assert len(files) == plan["output_files"]
    assert 0.2 * ROWS < stats["rows"] < 0.99 * ROWS  # enough is dropped to tell pairs from texts
    assert plan["pairs"] == pytest.approx(stats["rows"], rel=0.05)  # 700 rows: a standard error of 1.3 %
    stored = sum(
        pq.read_metadata(file).row_group(0).column(i).total_compressed_size for file in files for i in range(5)
    )
    assert plan["output_bytes"] / plan["pairs"] == pytest.approx(stored / stats["rows"], rel=0.05)
    assert plan["output_bytes"] / plan["pairs"] == pytest.approx(
        sum(file.stat().st_size for file in files) / stats["rows"], rel=0.05
    )


def test_the_share_of_pairs_is_that_of_the_trial(hashed, corpus):
    """By hand for all rows; the sample has as many as a window, chosen by a seed."""
    config, plan = hashed
    aligned = align(list(corpus[1].values()), TextTokenizer(config.tokenizer).fast, config.data.seq_len, 16)
    assert plan["pairs"] == pytest.approx(len(aligned.rows), rel=0.05)


class TimedTrial(jobs.encode_plan.Trial):
    """Takes half a second, by its own account."""

    def run(self, window):
        return super().run(window) | {"seconds": 0.5}


def test_time_is_texts_by_speed_and_speed_is_that_of_all_workers(hashed, minilm, plan_of, monkeypatch):
    _, plan = hashed
    expected = ROWS / plan["rows_per_second"] + plan["start_up_seconds"]
    assert plan["seconds"] == pytest.approx(expected, abs=0.6)  # all three are rounded
    monkeypatch.setattr(jobs.encode_plan, "Trial", TimedTrial)
    two = plan_of(minilm(*HASHED, "encoding.workers=2"))
    assert (two["workers"], two["rows_per_second"]) == (2, 2 * 200 / 0.5)


def test_broken_shards_are_passed_over(minilm, write_texts, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.encode_plan, "TRIAL_SECONDS", 0.1)
    write_texts(tmp_path / "texts", 120, shard_rows=40)
    (tmp_path / "texts" / "part-00001.parquet").write_bytes(b"no Parquet")
    config = minilm(*HASHED)
    plan = plan_encoding(Job(config, recipe_of(config), tmp_path, tmp_path), *read_corpus(tmp_path / "texts"))
    assert plan["trial_rows"] == 80
    for part in (tmp_path / "texts").glob("*.parquet"):
        part.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match="holds no readable row"):
        plan_encoding(Job(config, recipe_of(config), tmp_path, tmp_path), *read_corpus(tmp_path / "texts"))


def test_an_encoder_that_cannot_be_loaded_is_told_in_a_sentence(minilm, plan_of):
    config = minilm("encoder.dim=500")
    with pytest.raises(ValueError, match=r"^encoder\.dim is 500, but .* gives 384 dimensions; lower encoder\.dim$"):
        plan_of(config)


def test_a_tokenizer_that_cannot_be_had_is_told_in_a_sentence(minilm, plan_of):
    with pytest.raises(ValueError, match=r"^encoder\.prompt_name 'passage': .* has the prompts \["):
        plan_of(minilm("encoder.prompt_name=passage"))


def test_the_command_says_all_of_it_and_writes_nothing(corpus, capsys, monkeypatch):
    monkeypatch.setattr(jobs.encode_plan, "TRIAL_SECONDS", 0.1)
    texts = corpus[0]
    before = files_below(texts.parent)
    settings = [part for setting in HASHED for part in ("--set", setting)]
    arguments = ["--config", "configs/minilm.yaml", "--texts", str(texts), "--out", str(texts.parent / "pairs")]
    main([*arguments, *settings, "--dry-run"])
    said = capsys.readouterr().out
    assert files_below(texts.parent) == before
    assert re.search(r"^texts +2,000 in 3 file\(s\): en 2,000$", said, re.M)
    assert re.search(r"^pairs +about [\d,]+ in at most 9 files, \d\.\d MB$", said, re.M)
    assert re.search(r"^speed +[\d,.]+ texts/s on 1 cpu worker.* of 200 texts; .* ready after \d+ s$", said, re.M)
    assert re.search(r"^time +about \d+ s \(0\.\d\d hours\) on this hardware$", said, re.M)
    assert said.splitlines()[-1] == "nothing was written"


def test_every_language_is_named(hashed):
    text = plan_text(hashed[1] | {"languages": {"de": 1_200_000, "ja": 7}})
    assert "de 1,200,000, ja 7" in text


@pytest.mark.nightly
def test_the_time_is_that_of_the_job_within_a_loose_factor(minilm, plan_of, corpus, tmp_path):
    config = minilm()
    plan = plan_of(config)
    stats = make_pairs(config, corpus[0], tmp_path / "pairs")
    took = stats["seconds"] - stats["start_up_seconds"]
    assert 1 / 3 < (ROWS / plan["rows_per_second"]) / took < 3
