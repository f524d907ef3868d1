"""jobs/encode.py with an OpenAI-compatible server: the same pairs as with the model itself, whatever the server does.

The servers are real, on loopback, with the vectors of MiniLM; Ray's workers ask them. How the encoder speaks to a
server is tests/encoders/test_openai.py's.
"""

import json

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from embinv.data.pairs import read_pairs
from embinv.data.schema import matrix, read_recipe
from jobs.encode import make_pairs
from tests.encoders import embeddings_server as fault
from tests.encoders.embeddings_server import EmbeddingsServer, status
from tests.fakes import MINILM

ROWS = 240
SETTINGS = (
    "data.seq_len=16",
    "data.shard_rows=64",
    "data.validation=0.1",
    "data.test=0.1",
    "encoding.precision=recipe",
    "encoding.request_rows=10",
    "encoding.timeout_s=8",
)
FAULTS = (  # each kind that there is alone: tests/encoders/test_openai.py
    *[fault.Fault()] * 9,  # good ones: against their width the encoder knows short vectors
    *(status(429, retry_after=0.2), status(503), fault.Fault(wait_s=12), fault.VECTORS_SHORT, fault.CUT),
)
KEY = "sk-do-not-show-5c0e"
REFUSED, NOT_FINITE = "Eggplant for the server to refuse", "Turnip without any finite vector"


def served(server, **recipe):
    """Overrides for an encoder behind `server`."""
    given = {"kind": "openai", "model": "minilm", "base_url": server.base_url} | recipe
    return (*(f"encoder.{name}={value}" for name, value in given.items()), f"data.tokenizer={MINILM}", *SETTINGS)


def rows_of(out):
    table = pads.dataset(sorted(out.rglob("*.parquet")), format="parquet", partitioning="hive").to_table()
    table = table.sort_by("id")
    return table.drop_columns(["embedding"]).to_pylist(), matrix(table["embedding"], 384).astype(np.float32)


def quarantined(out):
    return [
        json.loads(line)
        for file in sorted((out / "_rejected").glob("rows-*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def texts(write_texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openai") / "texts"
    return folder, write_texts(folder, ROWS, shard_rows=100)


@pytest.fixture(scope="module")
def local(ray_cluster, minilm, texts):
    """Pairs by the model itself."""
    out = texts[0].with_name("local")
    make_pairs(minilm(*SETTINGS), texts[0], out)
    return out


@pytest.fixture(scope="module")
def troubled(ray_cluster, minilm, texts):
    """Pairs from a server that fails in many ways, each of which passes; its requests and the job's statistics."""
    out = texts[0].with_name("troubled")
    with EmbeddingsServer() as server:
        server.embed(["loaded before anybody waits"])
        server.faults.extend(FAULTS)
        config = minilm(*served(server))
        stats = make_pairs(config, texts[0], out)
        assert not server.faults
    return out, server, stats, config


def test_pairs_are_those_of_the_model_itself_whatever_fails_meanwhile(local, troubled):
    out, _, stats, _ = troubled
    (rows, vectors), (expected_rows, expected) = rows_of(out), rows_of(local)
    assert rows == expected_rows  # ids, texts, languages, token ids and splits
    assert len(rows) == stats["rows"] > 0.9 * ROWS
    np.testing.assert_allclose(vectors, expected, rtol=2**-10, atol=2e-5)  # float16 rounds at 2^-11
    assert stats["splits"].keys() == {"train", "validation", "test"}
    assert set(stats["dropped"]) <= {"too_few_tokens"} and not (out / "_rejected").exists()


def test_the_server_gets_the_texts_that_are_stored_in_requests_of_the_config(troubled):
    out, server, _, _ = troubled
    stored = {row["text"] for row in rows_of(out)[0]}
    assert {text for request in server.requests for text in request.texts} == stored
    assert max(len(request.texts) for request in server.requests) == 10
    assert {request.body["model"] for request in server.requests} == {"minilm"}


def test_pairs_carry_the_recipe_and_are_read_as_any_others(troubled):
    out, _, stats, config = troubled
    assert read_recipe(out).encoder == config.encoder
    assert {len(read_pairs(out, split)) for split in stats["splits"]} == set(stats["splits"].values())


def test_where_the_server_is_plays_no_part_and_its_model_does(troubled, minilm, texts, capsys):
    out, server, stats, _ = troubled
    with EmbeddingsServer() as other:
        assert other.base_url != server.base_url
        assert make_pairs(minilm(*served(other)), texts[0], out) == stats
        assert f"all done before, {stats['rows']} pairs" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"encoder\.model: 'minilm' != 'e5'"):
            make_pairs(minilm(*served(other, model="e5")), texts[0], out)
        assert other.requests == []


def add_texts(folder, *texts):
    """Texts more, with ids from 1 on, in a shard of their own among those that are there."""
    schema = pq.read_schema(folder / "part-00000.parquet")
    rows = [{"id": i, "text": text, "lang": "en", "spans": None} for i, text in enumerate(texts, start=1)]
    table = pads.dataset(sorted(folder.glob("*.parquet")), format="parquet", schema=schema).to_table()
    mixed = [*table.to_pylist()[:30], *rows, *table.to_pylist()[30:]]
    for file in folder.glob("*.parquet"):
        file.unlink()
    pq.write_table(table.from_pylist(mixed, schema), folder / "part-00000.parquet")
    stats = json.loads((folder / "_stats.json").read_text())
    (folder / "_stats.json").write_text(json.dumps(stats | {"rows": len(mixed)}))


def test_texts_without_a_vector_are_set_aside_with_the_reason_and_the_others_stay(
    ray_cluster, minilm, write_texts, tmp_path
):
    written = write_texts(tmp_path / "texts", 90)
    add_texts(tmp_path / "texts", f"{REFUSED}, one", f"{NOT_FINITE}", f"{REFUSED}, two")
    out = tmp_path / "pairs"
    with EmbeddingsServer(refuses="eggplant", nan_for="turnip") as server:
        server.embed(["loaded before anybody waits"])
        stats = make_pairs(minilm(*served(server), "encoding.retries=1"), tmp_path / "texts", out)
    found = sorted(quarantined(out), key=lambda row: row["id"])
    no_vector = "a vector with NaN, infinity or zeros only in 2 tries"
    assert [(row["id"], row["reason"]) for row in found] == [
        (1, "400 This input is not for me."),
        (2, no_vector),
        (3, "400 This input is not for me."),
    ]
    assert found[0]["text"] == f"{REFUSED}, one".lower()  # as aligned: this is what the server got
    reasons = {"400 This input is not for me.": 2, no_vector: 1}
    assert {reason: stats["dropped"].get(reason) for reason in reasons} == reasons
    assert stats["dropped"].get("too_few_tokens", 0) + stats["rows"] == 90
    assert stats["rejected_files"] == {}
    assert {row["id"] for row in rows_of(out)[0]} <= written.keys()
    assert json.loads((out / "_stats.json").read_text()) == stats


def test_a_server_that_cannot_be_used_ends_the_job_with_its_url_and_the_fix(ray_cluster, minilm, texts, tmp_path):
    with EmbeddingsServer(key="another") as server:
        server.embed(["loaded before anybody waits"])
        with pytest.raises(ValueError, match=rf"base_url: {server.base_url}/embeddings answers 401 .*OPENAI_API_KEY"):
            make_pairs(minilm(*served(server)), texts[0], tmp_path / "pairs")
        with pytest.raises(ValueError, match=r"encoder\.dim is 500, but .* gives 384 dimensions"):
            server.key = None
            make_pairs(minilm(*served(server), "encoder.dim=500"), texts[0], tmp_path / "wide")
        server.model = "minilm"
        stats = make_pairs(minilm(*served(server)), texts[0], tmp_path / "pairs")  # the same command, once mended
    assert stats["rows"] > 0.9 * ROWS


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_key_comes_from_the_environment_and_stands_nowhere(start_job, write_texts, monkeypatch, tmp_path):
    write_texts(tmp_path / "texts", 60)
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    with EmbeddingsServer(key=KEY) as server:
        server.faults.extend([status(500, f"no luck with {KEY}")] * 3)
        settings = [part for setting in served(server, api_key_env="EMBEDDINGS_KEY") for part in ("--set", setting)]
        command = ["jobs/encode.py", "--config", "configs/minilm.yaml", "--texts", tmp_path / "texts", *settings]
        job = start_job(*command, "--out", tmp_path / "pairs")
        code, output = job.finish()
        assert code == 0, output
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
        monkeypatch.setenv("EMBEDDINGS_KEY", f"{KEY}-of-somebody-else")
        refused = start_job(*command, "--out", tmp_path / "none")
        code, complaint = refused.finish()
    assert code == 2, complaint
    assert "401" in complaint and "EMBEDDINGS_KEY" in complaint
    assert (tmp_path / "pairs" / "_SUCCESS").is_file()
    assert "api_key_env: EMBEDDINGS_KEY" in (tmp_path / "pairs" / "settings.yaml").read_text()
    folders = (tmp_path, job.ray_folder, refused.ray_folder)  # outputs, the job's own log, and all of Ray's
    written = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in written} >= {".parquet", ".json", ".yaml", ".log"}
    assert [file for file in written if KEY.encode() in file.read_bytes()] == []
