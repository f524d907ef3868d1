import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embinv.calibration import FILE, Calibration, Calibrations, Curve, fit
from embinv.checkpoint import load_checkpoint
from embinv.decoding.options import DecodingOptions
from embinv.inverter import load_inverter
from tests.fakes import hash_spec, tiny_checkpoint, unit_vectors, word_tokenizer

SPEC, USUAL = hash_spec(16), DecodingOptions()


def one(strategy="confidence", steps=8, decoding=USUAL, rows=5):
    rising = Curve(scores=[0.2, 0.6], probabilities=[0.1, 0.5])
    return Calibration(strategy=strategy, steps=steps, decoding=decoding, rows=rows, token=rising, text=rising)


def test_curve_is_linear_between_knots_and_constant_beyond():
    assert Curve(scores=[0.2, 0.6], probabilities=[0.1, 0.5])([0.0, 0.2, 0.4, 0.6, 1.0]) == pytest.approx(
        [0.1, 0.1, 0.3, 0.5, 0.5]
    )


@pytest.mark.parametrize(
    ("scores", "probabilities", "told"),
    [
        ([0.2, 0.1], [0.1, 0.5], "scores do not ascend"),
        ([0.1, 0.2], [0.5, 0.1], "probabilities do not ascend"),
        ([0.1], [0.1, 0.5], "1 scores and 2 probabilities"),
        ([0.1, 0.2], [0.1, 1.5], "outside"),
        ([], [], "at least 1 item"),
    ],
)
def test_curve_that_is_none_is_refused(scores, probabilities, told):
    with pytest.raises(ValueError, match=told):
        Curve(scores=scores, probabilities=probabilities)


def test_tokens_and_texts_are_fitted_by_how_often_they_were_right():
    """Half of the tokens said with 0.4 are right and all said with 0.9; texts are right at 0.8 and wrong at 0.3."""
    originals = [[1, 2], [3, 4], [5, 6], [7, 8]]
    recovered = [[1, 9], [3, 9], [5, 6], [7, 8]]
    found = fit("confidence", 8, USUAL, originals, recovered, [[0.9, 0.4]] * 2 + [[0.9, 0.4]] * 2, [0.3, 0.3, 0.8, 0.8])
    assert found.token([0.4, 0.9]) == [0.5, 1.0]
    assert found.text([0.3, 0.8]) == [0.0, 1.0]
    assert found.rows == 4


def test_nothing_recovered_is_nothing_to_fit_on():
    with pytest.raises(ValueError, match="not one token was recovered"):
        fit("confidence", 8, USUAL, [[1], [2]], [[], []], [[], []], [0.1, 0.1])


def test_a_way_of_decoding_has_its_own_calibration_and_a_new_one_replaces_it():
    margin = DecodingOptions(order="margin")
    found = Calibrations().with_one(one()).with_one(one(decoding=margin)).with_one(one(rows=7))
    assert len(found.fitted) == 2
    assert found.find("confidence", 8, USUAL).rows == 7
    assert found.find("confidence", 8, margin).rows == 5
    assert found.find("confidence", 16, USUAL) is None
    assert found.find("euler", 8, USUAL) is None


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = word_tokenizer(tmp_path / "words")
    tiny_checkpoint(tmp_path / "checkpoint", tokenizer, SPEC)
    return tmp_path / "checkpoint"


def test_checkpoint_keeps_its_calibrations_and_inversions_have_probabilities(checkpoint):
    vectors = unit_vectors(5, 16)
    plain = load_inverter(checkpoint).invert(vectors)
    assert all(each.probability is None and each.token_probability is None for each in plain)
    load_checkpoint(checkpoint).calibrations.with_one(one()).save(checkpoint)
    assert load_checkpoint(checkpoint).calibrations.fitted == [one()]
    found = load_inverter(checkpoint).invert(vectors)
    for before, after in zip(plain, found, strict=True):
        assert (before.text, before.confidence) == (after.text, after.confidence)
        assert after.probability == pytest.approx(np.interp(after.confidence, [0.2, 0.6], [0.1, 0.5]))
        assert after.token_probability == pytest.approx(np.interp(after.token_confidence, [0.2, 0.6], [0.1, 0.5]))
    assert all(each.probability is None for each in load_inverter(checkpoint).invert(vectors, steps=3))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        (json.dumps({"fitted": [{"strategy": "confidence"}]}), "no calibrations (fitted.0.steps: Field required"),
    ],
)
def test_file_that_is_none_is_refused_with_what_to_do(checkpoint, text, told):
    (checkpoint / FILE).write_text(text)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(checkpoint)
    assert told in str(caught.value)
    assert "delete it and run jobs/evaluate.py" in str(caught.value)


def test_calibrations_of_other_weights_are_none(checkpoint, tmp_path):
    load_checkpoint(checkpoint).calibrations.with_one(one()).save(checkpoint)
    tiny_checkpoint(tmp_path / "other", word_tokenizer(tmp_path / "words"), SPEC, seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", checkpoint)
    found = load_checkpoint(checkpoint).calibrations
    assert found.fitted == []
    assert found.weights == load_checkpoint(tmp_path / "other").calibrations.weights


def test_saving_that_fails_leaves_what_was_there(checkpoint, monkeypatch):
    found = load_checkpoint(checkpoint).calibrations.with_one(one())
    found.save(checkpoint)
    before = sorted(path.name for path in checkpoint.iterdir())

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            found.with_one(one(rows=9)).save(checkpoint)
    assert sorted(path.name for path in checkpoint.iterdir()) == before
    assert load_checkpoint(checkpoint).calibrations.fitted == [one()]
