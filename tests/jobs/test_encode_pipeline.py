"""The stages of the encode job by themselves, and what the pipeline leaves on disk: windows, types, compression."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file

from embinv.data.alignment import align
from embinv.data.schema import matrix, pairs_schema
from embinv.data.split import assign_split
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import open_encoder
from embinv.encoders.tokens import Tokens
from jobs.encode import make_pairs, recipe_of
from jobs.encode_pipeline import encoder_pool
from jobs.encode_stages import ENCODER_IDS, AlignWindow, EncodeWindow, Job
from jobs.pool import ModelPool
from jobs.rejects import read_rejects
from jobs.shards import TEXT_SCHEMA
from tests.encoders.tiny_models import tiny_embeddinggemma
from tests.fakes import MINILM

HASHED = ("encoder.kind=hash", "encoder.model=hash", f"data.tokenizer={MINILM}")
SETTINGS = ("data.seq_len=16", "data.validation=0.2", "data.test=0.2", "encoding.precision=recipe")
PROMPT = "search_document: "
TEXTS = [
    "Dr. Weber moved the appointment to May 4.",
    "Too short",
    "The payment of 1,200 EUR from ACME Corp. was returned.",
    "Anna owes Ben three coins, and he sent her two books and a map of the town in which they were both born.",
    "",
    "A parcel with four keys was lost on the way.",
]


@pytest.fixture
def job_of(minilm, tmp_path):
    """Returns a function that makes a job from overrides."""

    def job(*overrides):
        config = minilm(*SETTINGS, *overrides)
        (tmp_path / "started").mkdir(exist_ok=True)
        return Job(config, recipe_of(config), tmp_path / "pairs", tmp_path / "started")

    return job


def window(texts, lang="en"):
    ids = range(1000, 1000 + len(texts))
    return pa.table({"id": ids, "text": texts, "lang": [lang] * len(texts)}, schema=TEXT_SCHEMA)


# Aligning and tokenising


def test_rows_are_what_alignment_leaves_and_short_ones_are_dropped(job_of):
    job = job_of()
    table = AlignWindow.of(job)(window(TEXTS, "de"))
    expected = align(TEXTS, TextTokenizer(job.config.tokenizer).fast, 16, job.config.data.min_tokens)
    assert table["id"].to_pylist() == (1000 + expected.rows).tolist() == [1000, 1002, 1003, 1005]
    assert table["text"].to_pylist() == expected.texts.tolist()
    assert table["lang"].to_pylist() == ["de"] * 4
    np.testing.assert_array_equal(matrix(table["token_ids"], 16), expected.token_ids)


def test_splits_are_those_of_the_text(job_of, write_texts, tmp_path):
    texts = list(write_texts(tmp_path / "texts", 200).values())
    table = AlignWindow.of(job_of())(window(texts))
    assert table["split"].to_pylist() == [assign_split(text, 0.2, 0.2) for text in table["text"].to_pylist()]
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}


@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_encoder_ids_are_the_model_s_own_of_prompt_and_text(job_of, prompt):
    job = job_of(*([f"encoder.prompt='{prompt}'"] if prompt else []))
    table = AlignWindow.of(job)(window(TEXTS))
    texts = table["text"].to_pylist()
    own = open_encoder(job.recipe.encoder).model.tokenizer([prompt + text for text in texts])["input_ids"]
    assert table[ENCODER_IDS].to_pylist() == own
    assert not any(PROMPT.strip() in text for text in texts)  # the decoder is not to write it


def test_a_kind_that_takes_texts_gets_no_ids(job_of):
    assert ENCODER_IDS not in AlignWindow.of(job_of(*HASHED))(window(TEXTS)).column_names


# Encoding


def test_the_prompt_is_in_the_vector_and_not_in_the_text(job_of):
    job = job_of(f"encoder.prompt='{PROMPT}'")
    pairs = EncodeWindow(job, None)(AlignWindow.of(job)(window(TEXTS)))
    bare = open_encoder(job.recipe.encoder.model_copy(update={"prompt": None}))
    texts = pairs["text"].to_pylist()
    found = matrix(pairs["embedding"], 384).astype(np.float32)
    np.testing.assert_allclose(found, bare.encode([PROMPT + text for text in texts]), rtol=2**-10, atol=2e-5)
    assert np.abs(found - bare.encode(texts)).max() > 0.01


@pytest.mark.parametrize("kind", [(), HASHED], ids=["tokens", "texts"])
@pytest.mark.parametrize("texts", [[], ["Too short"]], ids=["no row", "no pair"])
def test_a_window_of_nothing_gives_no_pairs_in_their_schema(job_of, kind, texts):
    job = job_of(*kind)
    pairs = EncodeWindow(job, None)(AlignWindow.of(job)(window(texts)))
    assert len(pairs) == 0
    split = pa.field("split", pa.string(), nullable=False)
    assert pairs.schema.equals(pairs_schema(job.recipe).append(split), check_metadata=True)
    assert not (job.out / "_rejected").exists()


def test_an_encoder_says_when_it_is_ready_and_runs_the_threads_of_the_config(job_of):
    before = torch.get_num_threads()
    try:
        job = job_of()
        stage = EncodeWindow(job, 3)
        assert stage.thread.submit(torch.get_num_threads).result() == 3  # where it encodes
    finally:
        torch.set_num_threads(before)
    assert len(list(job.started.iterdir())) == 1


def test_an_encoder_that_cannot_be_loaded_is_told_with_the_first_window(job_of):
    job = job_of("encoder.dim=500")
    stage = EncodeWindow(job, None)  # Ray would hide what is raised here
    with pytest.raises(ValueError, match=r"^encoder\.dim is 500, but .* gives 384 dimensions; lower encoder\.dim$"):
        stage(AlignWindow.of(job)(window(TEXTS)))
    assert list(job.started.iterdir()) == []


def test_a_model_that_gives_nan_for_anything_is_told_before_the_corpus_is_touched(job_of, tmp_path):
    tiny_embeddinggemma(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        {name: torch.full_like(weight, float("nan")) for name, weight in weights.items()},
        tmp_path / "model" / "model.safetensors",
        metadata={"format": "pt"},
    )
    job = job_of(f"encoder.model={tmp_path / 'model'}", "encoder.dim=32")
    with pytest.raises(ValueError, match=r"gave a vector with NaN or infinity for text .* try encoder\.dtype: float32"):
        EncodeWindow(job, None)(AlignWindow.of(job)(window(TEXTS)))
    assert read_rejects(job.out).rows == {}
    assert list(job.started.iterdir()) == []


@pytest.fixture(scope="module")
def nan_for_cyrillic(tmp_path_factory):
    """A model in whose vectors Cyrillic letters are NaN."""
    folder = tmp_path_factory.mktemp("models") / "gemma"
    tiny_embeddinggemma(folder)
    weights = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    cyrillic = [i for token, i in vocabulary.items() if any("\u0400" <= letter <= "\u04ff" for letter in token)]
    weights["embed_tokens.weight"][cyrillic] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_text_whose_vector_is_not_finite_is_set_aside_and_its_batch_stays(job_of, nan_for_cyrillic):
    good = ["Dr. Weber moved the appointment.", "Anna Müller wohnt in Köln."]
    job = job_of(f"encoder.model={nan_for_cyrillic}", "encoder.dim=32")
    pairs = EncodeWindow(job, None)(AlignWindow.of(job)(window([good[0], "Она пишет письмо.", good[1]])))
    assert pairs["id"].to_pylist() == [1000, 1002]
    alone = open_encoder(job.recipe.encoder).encode(pairs["text"].to_pylist())
    np.testing.assert_allclose(matrix(pairs["embedding"], 32).astype(np.float32), alone, rtol=2**-9, atol=1e-4)
    assert read_rejects(job.out).rows == {1001: "the encoder gave a vector with NaN or infinity"}
    [line] = [json.loads(file.read_text()) for file in (job.out / "_rejected").iterdir()]
    assert line["text"].startswith("Она")


def test_tokens_reach_the_encoder_as_they_were_made(job_of):
    table = AlignWindow.of(job_of())(window(TEXTS))
    tokens = Tokens.from_arrow(table.slice(1)[ENCODER_IDS])
    assert tokens.to_arrow().to_pylist() == table[ENCODER_IDS].to_pylist()[1:]


# What is reserved


@pytest.mark.parametrize(("asked", "workers", "threads"), [(1, 1, 4), (2, 2, 2), (4, 4, 1), (9, 9, 1), ("null", 4, 1)])
def test_encoders_on_a_cpu_share_its_cores_and_leave_some_to_the_rest(ray_cluster, minilm, asked, workers, threads):
    pool = encoder_pool(minilm(f"encoding.workers={asked}"), 100)
    assert (pool.workers, pool.threads) == (workers, threads)
    assert pool.workers * pool.resources["num_cpus"] <= 4 - 2  # of the cluster's 4
    assert encoder_pool(minilm(f"encoding.workers={asked}", "encoding.threads=7"), 100).threads == 7


def nodes(monkeypatch, *cpus, gpus=0, kind=None):
    """Nodes of so many CPUs, the last one with GPUs, and a dead one."""
    found = [{"Alive": True, "Resources": {"CPU": float(n)} if n else {}} for n in cpus]
    if gpus:
        found[-1]["Resources"] |= {"GPU": float(gpus)} | ({} if kind is None else {f"accelerator_type:{kind}": 1.0})
    monkeypatch.setattr(ray, "nodes", lambda: [*found, {"Alive": False, "Resources": {"CPU": 96.0, "GPU": 8.0}}])


def test_no_node_is_filled_with_copies_of_a_model_or_given_more_threads_than_cores(minilm, monkeypatch):
    nodes(monkeypatch, 64)
    assert encoder_pool(minilm(), 100) == ModelPool(4, {"num_cpus": 0.01}, 16)
    assert encoder_pool(minilm(*HASHED), 100).workers == 1
    nodes(monkeypatch, 0, 8, 8, 8)
    assert encoder_pool(minilm(), 100) == ModelPool(12, {"num_cpus": 0.01}, 2)
    assert encoder_pool(minilm("encoding.workers=1"), 100).threads == 8


def test_encoders_are_no_more_than_windows_and_then_have_more_threads(minilm, monkeypatch):
    nodes(monkeypatch, 4)
    pool = encoder_pool(minilm(), 1)
    assert (pool.workers, pool.threads) == (1, 4)


def test_encoders_on_gpus_take_one_each_and_no_cpu(minilm, monkeypatch):
    nodes(monkeypatch, 16, gpus=3)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert encoder_pool(minilm("encoding.device=cuda"), 100) == ModelPool(3, {"num_gpus": 1, "num_cpus": 0}, None)
    assert encoder_pool(minilm("encoding.device=cuda", "encoding.workers=8"), 2).workers == 2


def test_a_kind_of_gpu_is_asked_for_by_its_name(minilm, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wanted = minilm("encoding.device=cuda", "encoding.accelerator=A100", "encoding.workers=2")
    nodes(monkeypatch, 16, 16, gpus=8, kind="A100")
    kinds = {"num_gpus": 1, "num_cpus": 0, "accelerator_type": "A100"}
    assert encoder_pool(wanted, 100) == ModelPool(2, kinds, None)
    nodes(monkeypatch, 16, 16, gpus=8, kind="T4")
    with pytest.raises(ValueError, match=r"this machine has 0 GPU\(s\) of kind A100; set it to no more than that"):
        encoder_pool(wanted, 100)


@pytest.mark.parametrize(("gpus", "asked", "workers"), [(0, "null", 1), (3, 8, 8)])
def test_gpus_that_are_not_there_are_not_waited_for_unless_a_cluster_may_grow(
    minilm, monkeypatch, capsys, gpus, asked, workers
):
    nodes(monkeypatch, 16, gpus=gpus)
    config = minilm("encoding.device=cuda", f"encoding.workers={asked}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=rf"cuda with {workers} worker\(s\), but this machine has {gpus} GPU"):
        encoder_pool(config, 100)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert encoder_pool(config, 100).workers == workers
    assert f"which has {gpus} GPU(s), has grown to {workers}" in capsys.readouterr().out


# On disk

ROWS, WINDOW = 300, 128


@pytest.fixture(scope="module")
def on_disk(ray_cluster, minilm, write_texts, tmp_path_factory):
    """Pairs by two workers, in windows that no shard is a multiple of."""
    folder = tmp_path_factory.mktemp("disk")
    texts = write_texts(folder / "texts", ROWS, shard_rows=ROWS)
    config = minilm(*SETTINGS, *HASHED, f"data.shard_rows={WINDOW}", "encoding.workers=2")
    return config, folder / "pairs", make_pairs(config, folder / "texts", folder / "pairs"), texts


def test_a_file_is_one_split_of_one_window_in_one_row_group(on_disk):
    _, out, stats, texts = on_disk
    window_of = {identity: row // WINDOW for row, identity in enumerate(texts)}
    files = sorted(out.rglob("*.parquet"))
    found = [
        (file.parent.name, {window_of[i] for i in pq.read_table(file, columns=["id"])["id"].to_pylist()})
        for file in files
    ]
    assert all(len(windows) == 1 for _, windows in found)
    assert len(found) == len({(split, *windows) for split, windows in found}) == 3 * -(-ROWS // WINDOW)
    assert {pq.read_metadata(file).num_row_groups for file in files} == {1}
    assert sum(pq.read_metadata(file).num_rows for file in files) == stats["rows"]


def test_vectors_are_float16_lists_of_fixed_size_in_zstd(on_disk):
    _, out, _, _ = on_disk
    for file in out.rglob("*.parquet"):
        schema, footer = pq.read_schema(file), pq.read_metadata(file)
        assert schema.field("embedding").type == pa.list_(pa.field("element", pa.float16()), 384)
        assert schema.field("token_ids").type == pa.list_(pa.field("element", pa.int32()), 16)
        columns = [footer.row_group(0).column(i) for i in range(footer.num_columns)]
        assert {column.compression for column in columns} == {"ZSTD"}
        [embedding] = [column for column in columns if column.path_in_schema.startswith("embedding")]
        assert "BYTE_STREAM_SPLIT" in embedding.encodings
        assert embedding.total_uncompressed_size < 2.1 * 384 * footer.num_rows + 4096  # two bytes a number


def test_every_file_and_row_group_carries_the_recipe(on_disk):
    config, out, _, _ = on_disk
    for file in out.rglob("*.parquet"):
        assert json.loads(pq.read_schema(file).metadata[b"embinv"]) == recipe_of(config).model_dump(mode="json")


def test_how_many_workers_encode_plays_no_part_in_the_pairs(on_disk, minilm):
    _, out, stats, _ = on_disk
    alone = minilm(*SETTINGS, *HASHED)
    again = make_pairs(alone, out.with_name("texts"), out.with_name("alone"))
    assert (again["rows"], again["splits"]) == (stats["rows"], stats["splits"])

    def rows(folder):
        tables = [pq.read_table(file, partitioning=None) for file in sorted(folder.rglob("*.parquet"))]
        return pa.concat_tables([table.replace_schema_metadata() for table in tables]).sort_by("id")

    assert rows(out).equals(rows(out.with_name("alone")))


def test_a_corpus_of_one_row_is_encoded(ray_cluster, minilm, write_texts, tmp_path):
    write_texts(tmp_path / "texts", 1)
    stats = make_pairs(minilm(*SETTINGS, *HASHED), tmp_path / "texts", tmp_path / "pairs")
    assert stats["rows"] == 1 and len(stats["splits"]) == 1
