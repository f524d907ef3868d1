"""The table of refinement: what it adds, what it costs, and that no text falls behind."""

import numpy as np
import pytest

from embinv.config import EvaluationSettings
from embinv.evaluation.evaluate import evaluate
from embinv.evaluation.generation import Generation
from embinv.evaluation.page import page
from embinv.evaluation.refinement import refinement_rows
from embinv.evaluation.report import render, tables
from embinv.inverter import load_inverter
from tests.fakes import BagEncoder, hash_spec, pairs_of, sentences, tiny_checkpoint, word_tokenizer

DIM = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    tiny_checkpoint(folder, tokenizer, hash_spec(DIM), seq_len=10)
    encoder = BagEncoder(DIM)
    encoder.dim = DIM
    return load_inverter(folder, precision="float32"), pairs_of(sentences(12), tokenizer, encoder, 10), encoder


def test_rows_say_what_each_budget_brings_and_costs(made):
    inverter, pairs, encoder = made
    vectors = pairs.embeddings.astype(np.float32)
    originals = [inverter.tokenizer.content(ids) for ids in pairs.token_ids.tolist()]
    decoded = Generation(originals, pairs.texts, inverter.invert(vectors, steps=4))
    budgets = [(1, 1), (4, 3)]
    rows = refinement_rows(inverter, vectors, decoded, encoder, budgets, decoding_ms=2.0)
    assert [(row["steps"], row["beam"], row["n"]) for row in rows] == [(0, 0, 12), (1, 1, 12), (4, 3, 12)]
    assert rows[0]["encoder_calls"] == 0 and rows[0]["milliseconds"] == 2.0
    assert 1 <= rows[1]["encoder_calls"] <= 2 < rows[2]["encoder_calls"] <= 1 + 3 + 3 * 9
    assert all(row["milliseconds"] > 2.0 for row in rows[1:])
    assert [row["cosine_falls"] for row in rows] == [0, 0, 0]
    assert rows[2]["cosine"] > rows[1]["cosine"] >= rows[0]["cosine"]
    assert rows[2]["token_f1"] > rows[0]["token_f1"]
    assert all(f"{name}_se" in row for row in rows for name in ("token_f1", "bleu", "exact_match", "cosine"))


def test_a_report_has_the_table_where_it_is_asked_for(made):
    inverter, pairs, encoder = made
    settings = EvaluationSettings(sweep_rows=6, steps=2, refine=[(1, 2)])
    evaluation = evaluate(inverter, pairs, pairs, encoder, settings)
    report = evaluation.report
    assert [row["n"] for row in report["refinement"]] == [6, 6]
    assert "refinement" not in evaluate(inverter, pairs, pairs, None, settings).report  # which has no encoder
    title, header, rows = tables(report)["refinement"]
    assert title == "Refinement with the encoder at hand (6 texts)" and "encoder calls a text" in header
    assert [row[0] for row in rows] == ["confidence", "+ rewriting 1 x 2"]
    whole = report | {
        "name": "tiny",
        "encoder": "bag",
        "seconds": {},
        "settings": {},
        "recoveries": [],
        "milestones": [],
    }
    assert "## Refinement with the encoder at hand" in render(whole)
    shown = page(whole, evaluation.scores, 3, 0)
    assert "With the encoder at hand" in shown and "+ rewriting 1 x 2" in shown
