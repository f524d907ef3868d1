"""benchmarks/refine.py: what its figures are of, and that each corrector is asked."""

import numpy as np

from benchmarks.refine import HEADLINE, figures, measured, table
from embinv.inverter import load_inverter
from embinv.trained_corrector import load_corrector
from tests.correctors import corrector_checkpoint
from tests.fakes import BagEncoder, hash_spec, pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer

DIM, LENGTH, ROWS = 8, 12, 4
SPEC = hash_spec(DIM)


def row(decoder, by, steps, beam, bleu, falls=0):
    costs = {"encoder_calls": 1.0, "milliseconds": 2.0, "cosine_falls": falls}
    figure = dict.fromkeys(("token_f1", "exact_match", "cosine"), 0.5) | {"bleu": bleu}
    errors = {f"{name}_se": 0.1 for name in figure}
    return {"decoder": decoder, "by": by, "steps": steps, "beam": beam, **figure, **errors, **costs}


def test_gains_are_over_the_same_decoders_texts_as_they_were():
    decoder, by, steps, beam = HEADLINE
    rows = [
        row(decoder, "", 0, 0, 20.0),
        row(decoder, "rewriting", 5, 4, 25.0, falls=1),
        row(decoder, by, steps, beam, 32.0, falls=2),
        row("T5 greedy", "", 0, 0, 0.0),
        row("T5 greedy", by, steps, beam, 3.0),
    ]
    found = figures(rows)
    assert found["bleu_gain_5_steps"] == 1.6 and found["cosine_falls"] == 3
    assert found["bleu_gains"] == {f"{decoder}, rewriting, 5 x 4": 1.25, f"{decoder}, {by}, 5 x 4": 1.6}
    assert figures(rows[:2])["bleu_gain_5_steps"] is None
    lines = table(rows).splitlines()
    assert len(lines) == 7 and f"| {decoder} | 0 |  | 0.500 ± 0.100 | 20.0 ± 0.1 |" in lines[2]


def test_each_decoder_is_refined_by_rewriting_and_by_the_correctors_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.refine.BUDGETS", [(1, 2)])
    tokenizer, encoder = word_tokenizer(tmp_path / "words"), BagEncoder(DIM)
    tiny_checkpoint(tmp_path / "inverter", tokenizer, SPEC, seq_len=LENGTH)
    inverters, correctors = {"mdlm": load_inverter(tmp_path / "inverter", precision="float32")}, {}
    for family in ("mdlm", "t5"):
        corrector_checkpoint(tmp_path / family, family, tokenizer, SPEC, LENGTH)
        correctors[family] = load_corrector(tmp_path / family, recipe_for(tokenizer, SPEC, LENGTH), precision="float32")
    test = pairs_of(sentences(ROWS), tokenizer, encoder, LENGTH)
    rows = measured(inverters, correctors, encoder, test)
    assert {row["decoder"] for row in rows} == {"diffusion, 8 passes"}
    assert [row["by"] for row in rows] == ["", "rewriting", "own corrector", "the other's corrector"]
    assert rows[0]["encoder_calls"] == 0 and all(row["encoder_calls"] >= 1 for row in rows[1:])
    assert all(row["n"] == ROWS and row["cosine_falls"] == 0 for row in rows)
    assert all(row["cosine"] >= rows[0]["cosine"] - 1e-4 for row in rows[1:])
    assert np.isfinite([row["milliseconds"] for row in rows]).all()
    assert {row["by"] for row in measured(inverters, {"mdlm": correctors["mdlm"]}, encoder, test)} == {
        "",
        "rewriting",
        "own corrector",
    }
