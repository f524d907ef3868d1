"""A corrector's checkpoint in the loop of refinement, for both families."""

import numpy as np
import pytest

from embinv.correcting import refined
from embinv.inverter import load_inverter
from embinv.trained_corrector import load_corrector
from tests.correctors import FAMILIES, corrector_checkpoint
from tests.fakes import WORDS, BagEncoder, hash_spec, recipe_for, sentences, tiny_checkpoint, word_tokenizer

DIM, LENGTH = 8, 12
SPEC = hash_spec(DIM)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "checkpoint"
    kept = np.array([number for number in range(tokenizer.vocab_size) if number not in (2, 6)])  # without `dan`
    corrector_checkpoint(folder, request.param, tokenizer, SPEC, LENGTH, kept)
    return folder


@pytest.fixture(scope="module")
def corrector(folder, tokenizer):
    return load_corrector(folder, recipe_for(tokenizer, SPEC, LENGTH), batch_size=7, precision="float32")


@pytest.fixture(scope="module")
def inverter(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inverter") / "checkpoint"
    tiny_checkpoint(folder, tokenizer, SPEC, seq_len=LENGTH)
    return folder


def case(rows=5):
    encoder = BagEncoder(DIM)
    texts = sentences(rows, seed=1)
    return encoder.encode(sentences(rows)), texts, encoder.encode(texts)


def texts_of(proposals):
    return [[each.text for each in row] for row in proposals]


def test_proposals_are_as_many_as_asked_and_of_their_own_rows(corrector):
    targets, texts, own = case()
    found = corrector.propose(targets, texts, own, 3)
    assert [len(row) for row in found] == [3] * 5 and len({tuple(row) for row in texts_of(found)}) > 1
    for row in range(5):
        part = slice(row, row + 1)
        assert texts_of(corrector.propose(targets[part], texts[part], own[part], 3)) == texts_of(found[row : row + 1])
    for each in (each for row in found for each in row):
        assert len(each.token_confidence) == len(each.token_ids) <= LENGTH and 0 < each.confidence <= 1
        assert each.probability is None and "dan" not in each.text.split()


def test_the_first_of_several_is_the_one_of_one_and_others_differ(folder, tokenizer):
    corrector = load_corrector(folder, recipe_for(tokenizer, SPEC, LENGTH), precision="float32")
    targets, texts, own = case()
    many = texts_of(corrector.propose(targets, texts, own, 4))
    if corrector.config.family == "mdlm_corrector":
        assert texts_of(corrector.with_seed(0).propose(targets, texts, own, 4)) == many
        assert [row[:1] for row in many] == texts_of(corrector.propose(targets, texts, own, 1))
        other = corrector.with_seed(1).propose(targets, texts, own, 4)
        assert texts_of(
            load_corrector(folder, recipe_for(tokenizer, SPEC, LENGTH), precision="float32", seed=1).propose(
                targets, texts, own, 4
            )
        ) == texts_of(other)
        assert texts_of(other) != many and [row[0] for row in texts_of(other)] == [row[0] for row in many]
    assert all(len(set(row)) > 1 for row in many)


def test_what_it_proposes_depends_on_hypothesis_and_both_vectors(corrector):
    targets, texts, own = case()
    said = texts_of(corrector.propose(targets, texts, own, 2))
    assert said != texts_of(corrector.propose(targets, texts[::-1], own, 2))
    assert said != texts_of(corrector.propose(targets[::-1], texts, own, 2))
    assert said != texts_of(corrector.propose(targets, texts, own[::-1], 2))


def test_long_empty_and_unknown_hypotheses_are_taken(corrector):
    targets, _, own = case(3)
    found = corrector.propose(targets, [" ".join(["anna"] * 40), "", "dan xyzzy"], np.zeros_like(own), 2)
    assert [len(row) for row in found] == [2, 2, 2]


def test_refining_with_it_never_lets_the_cosine_fall(corrector, inverter):
    targets, _, _ = case()
    first = load_inverter(inverter, precision="float32")
    found = first.invert(targets)
    before = refined(first, targets, found, BagEncoder(DIM), 0, 1)
    after = refined(first, targets, found, BagEncoder(DIM), 4, 3, corrector)
    assert all(new.cosine >= old.cosine for new, old in zip(after, before, strict=True))
    assert any(new.text != old.text for new, old in zip(after, before, strict=True))
    assert all(each.encoder_calls >= 2 for each in after)


def test_an_inverter_is_no_corrector_and_a_corrector_no_inverter(folder, inverter, tokenizer):
    with pytest.raises(ValueError, match="holds an inverter; train a corrector"):
        load_corrector(inverter, recipe_for(tokenizer, SPEC, LENGTH))
    with pytest.raises(ValueError, match="holds a corrector; give an inverter here"):
        load_inverter(folder)


def test_one_of_another_encoder_tokenizer_or_length_is_refused(folder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=rf"is of other pairs than the inverter: encoder\.dim: {DIM} != 16"):
        load_corrector(folder, recipe_for(tokenizer, hash_spec(16), LENGTH))
    with pytest.raises(ValueError, match=f"seq_len: {LENGTH} != 20"):
        load_corrector(folder, recipe_for(tokenizer, SPEC, 20))
    other = word_tokenizer(tmp_path, words=("other", *WORDS[1:]))
    with pytest.raises(ValueError, match="tokenizer_hash"):
        load_corrector(folder, recipe_for(other, SPEC, LENGTH))
    with pytest.raises(ValueError, match=r"^corrector .*nowhere: "):
        load_corrector(tmp_path / "nowhere", recipe_for(tokenizer, SPEC, LENGTH))


def test_precision_of_a_denoiser_is_that_which_is_asked_for(folder, tokenizer):
    rounded = load_corrector(folder, recipe_for(tokenizer, SPEC, LENGTH), precision="bfloat16")
    found = rounded.propose(*case(), 2)
    assert [len(row) for row in found] == [2] * 5
    with pytest.raises(ValueError, match="precision"):
        load_corrector(folder, recipe_for(tokenizer, SPEC, LENGTH), precision="float8")
