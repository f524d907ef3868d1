"""jobs/encode.py with the embedded encoder: which pairs come out, what lies beside them, and what is refused.

The stages by themselves are test_encode_pipeline.py's, servers test_encode_openai.py's, being killed
test_encode_resume.py's.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import jobs.encode
from embinv.config import Config
from embinv.data.alignment import align
from embinv.data.pairs import read_pairs
from embinv.data.schema import matrix, pairs_schema, read_recipe
from embinv.data.sole_writer import sole_writer
from embinv.data.split import assign_split
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import open_encoder
from jobs.encode import make_pairs, recipe_of, summary
from tests.provenance_checks import require_provenance

pytestmark = pytest.mark.usefixtures("ray_cluster")

ROWS = 200
SETTINGS = (
    "data.seq_len=16",
    "data.min_tokens=8",
    "data.shard_rows=64",
    "data.validation=0.1",
    "data.test=0.1",
    "encoding.precision=recipe",
)


@pytest.fixture(scope="module")
def config(minilm):
    return minilm(*SETTINGS)


class Made(NamedTuple):
    texts: dict[int, str]
    out: Path
    stats: dict[str, Any]
    earlier: float  # seconds that two interrupted sittings left on the clock; 1000 s were put there instead
    last: float  # seconds of the last sitting


@pytest.fixture(scope="module")
def made(ray_cluster, config, write_texts, tmp_path_factory):
    """A run in three sittings, two of them interrupted, beside what is left of a run whose output was deleted."""
    folder = tmp_path_factory.mktemp("encode")
    texts = write_texts(folder / "texts", ROWS, shard_rows=90)
    texts |= add_short_text(folder / "texts")
    left = folder / ".pairs.progress" / "ids"
    left.mkdir(parents=True)
    pq.write_table(pa.table({"id": list(texts)}), left / "done.parquet")
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(2):
            with patch.context() as broken, pytest.raises(KeyboardInterrupt):
                broken.setattr(jobs.encode, "run_pipeline", interrupted)
                make_pairs(config, folder / "texts", folder / "pairs")
    clock = folder / ".pairs.progress" / "seconds.json"
    earlier = json.loads(clock.read_text())
    clock.write_text("1000.0")
    began = time.monotonic()
    stats = make_pairs(config, folder / "texts", folder / "pairs")
    return Made(texts, folder / "pairs", stats, earlier, time.monotonic() - began)


def interrupted(*arguments):
    time.sleep(0.3)
    raise KeyboardInterrupt


def add_short_text(texts):
    """One text more, of too few tokens."""
    file = texts / "part-00000.parquet"
    table = pq.read_table(file)
    short = table.slice(0, 1).to_pylist()[0] | {"id": 7, "text": "Only four tokens here"}
    pq.write_table(table.from_pylist([*table.to_pylist(), short], table.schema), file)
    stats = json.loads((texts / "_stats.json").read_text())
    (texts / "_stats.json").write_text(json.dumps(stats | {"rows": stats["rows"] + 1}))
    return {7: short["text"]}


def table_of(out):
    return pads.dataset(sorted(out.rglob("*.parquet")), format="parquet").to_table()


def test_every_file_keeps_the_schema_with_its_recipe(made, config):
    out = made.out
    files = list(out.rglob("*.parquet"))
    assert {file.parent.name for file in files} == {"split=train", "split=validation", "split=test"}
    for file in files:
        assert pq.read_schema(file).equals(pairs_schema(recipe_of(config)), check_metadata=False)
        assert pq.read_schema(file).metadata[b"embinv"].decode() == recipe_of(config).model_dump_json()
        assert pq.read_table(file, partitioning=None)["embedding"].null_count == 0
    assert read_recipe(out) == recipe_of(config)


def test_every_text_is_there_once_unless_it_is_too_short(made, config):
    """Also those that a run had done whose output is gone."""
    texts, out, stats = made.texts, made.out, made.stats
    ids = table_of(out)["id"].to_pylist()
    aligned = align(list(texts.values()), TextTokenizer(config.tokenizer).fast, 16, 8)
    assert sorted(ids) == sorted(np.fromiter(texts, dtype=np.int64)[aligned.rows].tolist())
    assert 7 not in ids
    assert stats["rows"] == len(ids) == ROWS + 1 - stats["dropped"]["too_few_tokens"]


def test_vectors_are_the_encoder_s_own_of_the_stored_text(made, config):
    table = table_of(made.out)
    expected = open_encoder(config.encoder).encode(table["text"].to_pylist())
    found = matrix(table["embedding"], 384).astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-5)  # float16 rounds at 2^-11


def test_token_ids_spell_the_stored_text(made, config):
    texts, out = made.texts, made.out
    tokenizer = TextTokenizer(config.tokenizer)
    table = table_of(out)
    for row in table.drop_columns(["embedding"]).to_pylist():
        content = tokenizer.content(row["token_ids"])
        assert tokenizer.decode(row["token_ids"]) == row["text"]
        assert 8 <= len(content) <= 15
        assert row["token_ids"][len(content)] == tokenizer.eos_id
        assert set(row["token_ids"][len(content) + 1 :]) <= {tokenizer.pad_id}
        assert tokenizer.encode([texts[row["id"]]])[0][: len(content)] == content
        assert row["lang"] == "en"


def test_splits_follow_the_text(made):
    out, stats = made.out, made.stats
    for split, rows in stats["splits"].items():
        pairs = read_pairs(out, split)
        assert len(pairs) == rows > 0
        assert {assign_split(text, 0.1, 0.1) for text in pairs.texts} == {split}


def test_statistics_and_settings_lie_beside_the_pairs(made):
    out, stats = made.out, made.stats
    assert stats == json.loads((out / "_stats.json").read_text())
    assert stats["rows"] == sum(stats["splits"].values())
    assert stats["samples_per_second"] > 0 and stats["seconds"] > 0
    assert stats["corpus"]["rows"] == ROWS + 1 and stats["corpus"]["seconds"] == 1.0
    assert "min_tokens: 8" in (out / "settings.yaml").read_text()
    settings = require_provenance(out, "jobs/encode.py")["settings"]
    assert Config.model_validate(settings).to_yaml() in (out / "settings.yaml").read_text()
    assert not out.with_name(".pairs.progress").exists()


def test_a_second_run_changes_nothing(made, config, capsys):
    out, stats = made.out, made.stats
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_pairs(config, out.with_name("texts"), out) == stats
    assert f"all done before, {stats['rows']} pairs" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("override", "field"),
    [("data.seq_len=24", "seq_len: 16 != 24"), ("encoder.prompt='query: '", "encoder.prompt: None != 'query: '")],
)
def test_another_recipe_is_refused_by_name(made, minilm, override, field):
    out = made.out
    with pytest.raises(ValueError, match=field):
        make_pairs(minilm(*SETTINGS, override), out.with_name("texts"), out)


def test_a_begun_run_is_not_mixed_with_another(made, config, minilm, tmp_path, monkeypatch):
    texts, out = made.out.with_name("texts"), tmp_path / "pairs"
    monkeypatch.setattr(jobs.encode, "run_pipeline", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_pairs(config, texts, out)
    with pytest.raises(ValueError, match=r"was made with data\.min_tokens = 8, not 9; .*--overwrite"):
        make_pairs(minilm(*SETTINGS, "data.min_tokens=9"), texts, out)
    with pytest.raises(ValueError, match="seq_len: 16 != 20"):
        make_pairs(minilm(*SETTINGS, "data.seq_len=20"), texts, out)


def test_the_time_of_earlier_sittings_counts(made):
    assert made.earlier >= 2 * 0.3 - 0.01  # each is rounded to hundredths
    assert 1000 < made.stats["seconds"] <= 1000 + made.last + 0.01
    assert made.stats["samples_per_second"] > 0.9 * made.stats["rows"] / made.last  # of the last sitting alone


def test_a_folder_without_a_corpus_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"no finished corpus; make one with jobs/corpus\.py"):
        make_pairs(config, tmp_path, tmp_path / "pairs")


def test_a_folder_that_holds_something_else_is_left_alone(made, config, tmp_path):
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ValueError, match="is not empty and holds no pairs of ours"):
        make_pairs(config, made.out.with_name("texts"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_texts_that_are_all_too_short_are_a_mistake(config, tmp_path, write_texts):
    write_texts(tmp_path / "texts", 1)
    add_short_text(tmp_path / "texts")
    table = pq.read_table(tmp_path / "texts" / "part-00000.parquet")
    pq.write_table(table.slice(1), tmp_path / "texts" / "part-00000.parquet")
    stats = json.loads((tmp_path / "texts" / "_stats.json").read_text())
    (tmp_path / "texts" / "_stats.json").write_text(json.dumps(stats | {"rows": 1}))
    with pytest.raises(ValueError, match=r"'too_few_tokens': 1} \(data\.min_tokens is 8\)"):
        make_pairs(config, tmp_path / "texts", tmp_path / "pairs")


def test_a_corpus_that_lost_a_file_is_refused(config, tmp_path, write_texts):
    write_texts(tmp_path / "texts", 20, shard_rows=10)
    (tmp_path / "texts" / "part-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"its files hold 10 texts, but its _stats\.json says 20; files were lost"):
        make_pairs(config, tmp_path / "texts", tmp_path / "pairs")
    assert not (tmp_path / "pairs" / "_SUCCESS").exists()


def test_a_corpus_with_fewer_shards_than_it_had_is_refused_even_if_another_is_broken(config, tmp_path, write_texts):
    texts = tmp_path / "texts"
    write_texts(texts, 40, shard_rows=10)
    stats = json.loads((texts / "_stats.json").read_text())
    (texts / "_stats.json").write_text(json.dumps(stats | {"shards": 4}))
    (texts / "part-00001.parquet").unlink()
    (texts / "part-00002.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"holds 3 shards, but its _stats\.json says 4"):
        make_pairs(config, texts, tmp_path / "pairs")


def test_a_corpus_of_other_texts_at_the_same_place_is_refused(made, config, tmp_path, write_texts, monkeypatch):
    texts, out = tmp_path / "texts", tmp_path / "pairs"
    write_texts(texts, 20)
    stats = json.loads((texts / "_stats.json").read_text())
    (texts / "_stats.json").write_text(json.dumps(stats | {"digest": "aa"}))
    monkeypatch.setattr(jobs.encode, "run_pipeline", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_pairs(config, texts, out)
    (texts / "_stats.json").write_text(json.dumps(stats | {"digest": "bb"}))
    with pytest.raises(ValueError, match=r"was made with corpus\.digest = 'aa', not 'bb'; .*--overwrite"):
        make_pairs(config, texts, out)


def test_pairs_are_not_put_into_the_corpus_nor_a_corpus_read_from_pairs(made, config):
    texts = made.out.with_name("texts")
    (texts / "_SUCCESS").touch()
    with pytest.raises(ValueError, match="holds no pairs of ours; choose another folder"):
        make_pairs(config, texts, texts)
    (texts / "_SUCCESS").unlink()
    with pytest.raises(ValueError, match=r"holds no finished corpus; make one with jobs/corpus\.py"):
        make_pairs(config, made.out, made.out.with_name("other"))


def test_a_folder_in_which_another_job_is_at_work_is_left_to_it(made, config, tmp_path):
    out = tmp_path / "pairs"
    with sole_writer(out), pytest.raises(ValueError, match="another job is writing there"):
        make_pairs(config, made.out.with_name("texts"), out)
    assert not out.exists()


def test_the_last_lines_say_what_there_is_and_what_was_left_out():
    stats = {
        "rows": 2874,
        "splits": {"test": 156, "train": 2646, "validation": 72},
        "seconds": 20.9,
        "samples_per_second": 1237.4,
        "dropped": {"too_few_tokens": 1126},
        "rejected_files": {},
        "corpus": {"rows": 4000},
    }
    assert summary(stats, Path("/o")).splitlines() == [
        "2,874 pairs in /o (test 156, train 2,646, validation 72; 21 s, 1,237/s with start-up)",
        "left out 1,126 of 4,000 texts:",
        "  too_few_tokens            1,126  under data.min_tokens tokens",
    ]
    some = stats | {"dropped": {"400 This input is not for me.": 2}}
    assert summary(some, Path("/o")).splitlines()[2:] == [
        "  400 This input is not for me.            2",
        "  named in /o/_rejected, each with its reason",
    ]
    assert summary(stats | {"dropped": {}}, Path("/o")).count("\n") == 0


@pytest.mark.nightly  # test_cluster.py goes the same way
@pytest.mark.timeout(600)
def test_pairs_can_be_trained_on_and_their_files_inverted(made, tiny, tmp_path):
    from embinv.cli import main
    from jobs.train import train

    settings = tiny("data.min_tokens=8", "training.max_steps=2", "training.validations=1")
    train(settings, made.out, tmp_path / "run", resume=False)
    file = min((made.out / "split=test").glob("*.parquet"))
    recovered, checkpoint = tmp_path / "texts.parquet", tmp_path / "run" / "checkpoint"
    main(["invert", "--checkpoint", str(checkpoint), "--vectors", str(file), "--out", str(recovered)])
    assert pq.read_table(recovered)["id"].equals(pq.read_table(file, partitioning=None)["id"])
