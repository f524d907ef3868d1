"""benchmarks/defences.py measures what it says; its figures mean nothing at this size."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import defences
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from tests.fakes import pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer, write_pairs

SPEC = EncoderSpec(kind="hash", model="hash", dim=16)
SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    pairs, recipe = pairs_of(sentences(70), tokenizer, HashEncoder(SPEC)), recipe_for(tokenizer, SPEC)
    for split, rows in (("train", np.arange(50)), ("test", np.arange(50, 70))):
        write_pairs(folder / "pairs", recipe, pairs.take(rows), split)
    (folder / "texts").mkdir()
    spans = [[{"start": 0, "end": len(text.split()[0]), "label": "NAME"}] for text in pairs.texts]
    corpus = pa.table({"id": pairs.ids, "text": pairs.texts, "spans": pa.array(spans, SPANS)})
    pq.write_table(corpus, folder / "texts" / "part-00000.parquet")
    return folder


def called(monkeypatch, folder, *more, texts="texts"):
    places = ["--checkpoint", folder / "checkpoint", "--data", folder / "pairs", "--texts", folder / texts]
    monkeypatch.setattr(sys, "argv", ["defences.py", *map(str, places), "--threads", "1", "--steps", "1", *more])
    defences.main()


def test_the_line_has_the_rows_and_the_table_too(made, monkeypatch, capsys):
    monkeypatch.setattr(defences, "PAIRS", 50)
    only = ["--only", "noise", "rotation", "redaction", "--adaptation-steps", "0", "--table"]
    called(monkeypatch, made, *only)
    out = capsys.readouterr().out.splitlines()
    result = json.loads(out[-1])
    assert [row["defence"] for row in result["rows"]] == ["none", *["noise"] * 6, "rotation", "redaction"]
    assert all(row["adapted"] is None and "entity_recall" in row["leakage"] for row in result["rows"])
    [by_pairs] = result["rotation"]["by_pairs"]
    assert by_pairs["pairs"] == 50
    assert result["rotation"]["f1_share_at_50_pairs"] == by_pairs["f1_share"]
    table = [line.split("|")[1].strip() for line in out[:-1] if line.startswith("| ")]
    assert table == ["defence", *(row["defence"] for row in result["rows"]), "known pairs", "50"]


def test_without_labels_redaction_is_left_out_and_that_is_said(made, monkeypatch, capsys):
    called(monkeypatch, made, "--only", "redaction", "--adaptation-steps", "0", texts="nowhere")
    said = capsys.readouterr()
    assert [row["defence"] for row in json.loads(said.out)["rows"]] == ["none"]
    assert "redaction and entity recall are left out" in said.err


def test_a_mistake_ends_with_one_sentence(made, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, made, "--rows", "3")
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["error: rows: Input should be greater than 10"]
