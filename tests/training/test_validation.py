import numpy as np
import pytest
import torch

from embinv.encoders.hashing import HashEncoder
from embinv.training.settings import TrainingSettings
from embinv.training.validation import PARTIAL_MASKS, validate
from tests.fakes import WORDS, ContextDenoiser, OracleDenoiser, hash_spec, pairs_of


class Share:
    """A worker's place; totals are left to the test."""

    device = torch.device("cpu")

    def __init__(self, rank=0, world=1):
        self.rank, self.world = rank, world
        self.sums = None

    def total(self, values):
        self.sums = np.asarray(values)
        return list(values)


def oracle(toy, pairs, sure=0.99):
    x_0 = torch.from_numpy(pairs.token_ids).long()
    return OracleDenoiser(torch.from_numpy(pairs.embeddings).float(), x_0, toy.tokenizer.vocab_size, sure)


def measure(toy, denoiser, pairs, engine=None, steps=3):
    ids = toy.ids
    return validate(denoiser, pairs, ids.mask_id, (ids.eos_id, ids.pad_id), steps, engine or Share())


def test_oracle_gets_every_token_and_text_right(toy):
    figures = measure(toy, oracle(toy, toy.pairs), toy.pairs)
    assert (figures.token_accuracy, figures.exact_match, figures.n) == (1.0, 1.0, 20)
    assert figures.masked_accuracy == dict.fromkeys(PARTIAL_MASKS, 1.0)


def test_nelbo_of_a_denoiser_of_constant_surety_is_about_its_cross_entropy(toy):
    pairs = toy.pairs.take(np.arange(20).repeat(40))
    figures = measure(toy, oracle(toy, toy.pairs, sure=0.5), pairs, steps=1)
    assert figures.nelbo == pytest.approx(np.log(2), rel=0.05)


def test_other_texts_than_the_true_ones_score_as_counted_by_hand(toy):
    other = toy.pairs.take(np.roll(np.arange(20), 1))
    denoiser = oracle(toy, toy.pairs)
    denoiser.x_0 = torch.from_numpy(other.token_ids).long()
    figures = measure(toy, denoiser, toy.pairs)
    right = total = 0
    for truth, said in zip(toy.pairs.token_ids, other.token_ids, strict=True):
        length = len(toy.tokenizer.content(truth.tolist()))
        right += int((truth[:length] == said[:length]).sum())
        total += length
    assert figures.token_accuracy == pytest.approx(right / total)
    assert figures.exact_match == 0.0


def test_what_stands_after_the_end_does_not_count_and_the_end_does(toy):
    row = int(np.argmax((toy.pairs.token_ids == toy.ids.pad_id).sum(axis=1)))
    pairs = toy.pairs.take(np.array([row]))
    content = len(toy.tokenizer.content(pairs.token_ids[0].tolist()))
    for place, exact in ((content, 0.0), (content + 1, 1.0)):
        denoiser = oracle(toy, pairs.take(np.zeros(1, dtype=np.int64)))
        denoiser.x_0 = denoiser.x_0.clone()
        denoiser.x_0[0, place] = 5
        many = pairs.take(np.zeros(50, dtype=np.int64))
        figures = measure(toy, denoiser, many)
        assert (figures.token_accuracy, figures.exact_match) == (1.0, exact)


def test_workers_shares_add_up_to_the_whole(toy):
    ids = toy.ids
    denoiser = ContextDenoiser(toy.tokenizer.vocab_size)
    whole, *shares = (Share(), Share(0, 2), Share(1, 2))
    for engine in (whole, *shares):
        validate(denoiser, toy.pairs, ids.mask_id, (ids.eos_id, ids.pad_id), 3, engine)
    together = shares[0].sums + shares[1].sums
    # what is hidden from a text does not depend on how many workers there are
    assert together.tolist() == pytest.approx(whole.sums.tolist(), rel=1e-6)
    assert whole.sums[1] == 20


def test_figures_of_the_same_weights_are_the_same_at_each_call(toy):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    assert measure(toy, engine.model, toy.pairs) == measure(toy, engine.model, toy.pairs)


@pytest.mark.parametrize("words", [1, 2, 3, 5])
def test_few_short_texts_are_measured_too(toy, words):
    # at a mask of 10% nothing may be hidden in a text of five tokens; that is no reason to end a run
    pairs = pairs_of([" ".join(WORDS[:words])], toy.tokenizer, HashEncoder(hash_spec(16)))
    figures = measure(toy, oracle(toy, pairs), pairs)
    assert (figures.token_accuracy, figures.n) == (1.0, 1)


def test_row_names_partial_masks_as_such(toy):
    row = measure(toy, oracle(toy, toy.pairs), toy.pairs).as_row()
    assert list(row) == ["nelbo", "token_accuracy", "exact_match", "accuracy_at_10%_mask", "accuracy_at_50%_mask"]
