"""A folder of vec2text's, taken over; and what can then be done with a T5, as with any checkpoint."""

import numpy as np
import pytest
import torch

from embinv.cli import main
from embinv.config import EvaluationSettings
from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.options import Choices, DecodingOptions
from embinv.encoders.hashing import HashEncoder
from embinv.evaluation.evaluate import evaluate
from embinv.evaluation.page import page
from embinv.evaluation.report import render
from embinv.importing import import_vec2text
from embinv.inverter import T5TextInverter, load_inverter
from embinv.models.vec2text import save_vec2text
from serve_app.inverting import ServedCheckpoint, Way
from tests.fakes import hash_spec, pairs_of, sentences, unit_vectors, word_tokenizer
from tests.provenance_checks import require_provenance
from tests.t5 import DIM, EOS, LENGTH, PAD, tiny_config, tiny_inverter

SPEC = hash_spec(DIM)
SPARE = 5  # rows of the token embedding beyond the tokenizer's ids
VECTORS = unit_vectors(9, DIM)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_inverter(tiny_config(rows=tokenizer.vocab_size + SPARE, vocab_size=tokenizer.vocab_size), spread=0.4)


@pytest.fixture(scope="module")
def theirs(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    save_vec2text(model, folder, "hash", tokenizer.source)
    return str(folder)


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    import_vec2text(theirs, folder, "tiny", SPEC)
    return folder


@pytest.fixture(scope="module")
def inverter(ours):
    return load_inverter(ours, batch_size=4, precision="float32")


def tokens_by_hand(model, strategy, options=None):
    request = DecodingRequest(
        torch.from_numpy(VECTORS),
        LENGTH,
        model.config.mask_id,
        1,
        end_ids=(EOS, PAD),
        options=options or DecodingOptions(),
    )
    with torch.no_grad():
        return final_state(WRITERS[strategy](model, request)).tokens.tolist()


@pytest.mark.parametrize("strategy", list(WRITERS))
def test_it_inverts_as_its_weights_do(model, inverter, tokenizer, strategy):
    assert isinstance(inverter, T5TextInverter) and inverter.config.family == "t5"
    found = inverter.invert(VECTORS, strategy=strategy)
    by_hand = [tokenizer.content(ids) for ids in tokens_by_hand(model, strategy)]
    assert [each.token_ids for each in found] == by_hand
    assert [each.text for each in found] == [tokenizer.decode(ids) for ids in by_hand]
    assert all(0 < each.confidence <= 1 for each in found) and len({each.text for each in found}) > 1


def test_greedy_is_usual_and_strategies_of_others_are_refused(inverter):
    assert inverter.invert(VECTORS[:2]) == inverter.invert(VECTORS[:2], strategy="greedy", steps=1)
    with pytest.raises(ValueError, match="strategy confidence is none of this inverter's; choose one of greedy, beam"):
        inverter.invert(VECTORS, strategy="confidence")
    with pytest.raises(ValueError, match="option beams=9 does nothing for strategy greedy"):
        inverter.invert(VECTORS, options=DecodingOptions(beams=9))


def test_beams_share_the_batch(inverter):
    assert inverter.rows_at_once(Choices("beam", options=DecodingOptions(beams=2))) == 2
    assert inverter.rows_at_once(Choices("greedy")) == 4


def test_in_bfloat16_it_says_nearly_the_same(ours, inverter):
    rounded = load_inverter(ours, precision="bfloat16").invert(VECTORS)
    exact = inverter.invert(VECTORS)
    assert sum(a.token_ids[:1] == b.token_ids[:1] for a, b in zip(rounded, exact, strict=True)) >= len(exact) - 2


def test_a_report_of_it_has_no_gaps_and_a_row_for_each_strategy(inverter, tokenizer):
    texts, encoder = sentences(40), HashEncoder(SPEC)
    test, training = (pairs_of(part, tokenizer, encoder, LENGTH) for part in (texts[:10], texts[10:]))
    found = evaluate(inverter, test, training, None, EvaluationSettings(sweep_rows=4), validation=training)
    report = found.report
    assert (report["strategy"], report["steps"]) == ("greedy", LENGTH)
    assert not [name for name in report if "mask" in name]
    report |= {"name": "tiny", "encoder": "hash", "seconds": {}}
    assert [(row["strategy"], row["passes"]) for row in report["sweep"]] == [("greedy", LENGTH), ("beam", LENGTH)]
    said = "each written from its vector, from left to right (strategy greedy"
    assert said in render(report) and said in page(report, found.scores)


def test_it_is_served_with_a_step_for_each_token(ours):
    served = ServedCheckpoint(ours, "cpu", 1, 8)
    described = served.describe(encode=False)
    assert described.strategies == ["greedy", "beam"]
    way = Way(Choices("greedy"))
    *steps, last = served.run(VECTORS[:3], way, [True, False, True])
    assert len(steps) <= LENGTH and not last.shown
    for number, step in enumerate(steps[:2], start=1):
        written = [token for token in step.shown[0] if token.text is not None]
        assert step.shown[1] == [] and len(written) == min(number, len(step.shown[0]))
    texts = [decoded.inversions[0].text for decoded in last.results]
    assert texts == [each.text for each in served.inverter.invert(VECTORS[:3])]


def test_what_is_not_its_own_is_named(theirs, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=rf"encoder.dim is 16, but .* takes vectors of {DIM} dimensions \(hash\)"):
        import_vec2text(theirs, tmp_path / "out", "tiny", hash_spec(16))
    wide = word_tokenizer(tmp_path / "wide", [f"w{n}" for n in range(tokenizer.vocab_size + SPARE)])
    with pytest.raises(ValueError, match="name the one that the inverter was trained with"):
        import_vec2text(theirs, tmp_path / "out", "tiny", SPEC, wide.source)
    assert not (tmp_path / "out").exists()


def test_by_the_command_line(theirs, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(f"name: tiny\nencoder: {{kind: hash, model: hash, dim: {DIM}}}\ndata: {{tokenizer: x}}\n")
    main(["import", "--from", theirs, "--config", str(config), "--out", str(tmp_path / "out")])
    assert "up to 11 tokens" in capsys.readouterr().out
    require_provenance(tmp_path / "out", "embinv import")
    np.save(tmp_path / "v.npy", VECTORS)
    result = str(tmp_path / "texts.parquet")
    main(["invert", "--checkpoint", str(tmp_path / "out"), "--vectors", str(tmp_path / "v.npy"), "--out", result])
    assert f"{len(VECTORS)} texts" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["import", "--from", str(tmp_path / "none"), "--config", str(config), "--out", str(tmp_path / "other")])
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err
