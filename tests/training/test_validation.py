import numpy as np
import pytest
import torch

from embinv.data.vocabulary import Vocabulary
from embinv.decoding import parts
from embinv.encoders.hashing import HashEncoder
from embinv.metrics.tokens import exact_match, token_accuracy
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds
from embinv.training.validation import PARTIAL_MASKS, validate
from tests.fakes import WORDS, ContextDenoiser, OracleDenoiser, awaken, hash_spec, pairs_of


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
    return validate(denoiser, pairs, ids, steps, engine or Share())


def test_oracle_gets_every_token_and_text_right(toy):
    figures = measure(toy, oracle(toy, toy.pairs), toy.pairs)
    assert (figures.token_accuracy, figures.exact_match, figures.n) == (1.0, 1.0, 20)
    assert figures.masked_accuracy == dict.fromkeys(PARTIAL_MASKS, 1.0)


def test_nelbo_of_a_denoiser_of_constant_surety_is_about_its_cross_entropy(toy):
    pairs = toy.pairs.take(np.arange(20).repeat(40))
    figures = measure(toy, oracle(toy, toy.pairs, sure=0.5), pairs, steps=1)
    assert figures.nats == pytest.approx(np.log(2), rel=0.05)


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
        validate(denoiser, toy.pairs, ids, 3, engine)
    together = shares[0].sums + shares[1].sums
    # what is hidden from a text does not depend on how many workers there are
    assert together.tolist() == pytest.approx(whole.sums.tolist(), rel=1e-6)
    assert whole.sums[0] == 20


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


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_evaluation_where_an_end_or_padding_stands_too_early_or_too_late(toy, seed):
    rng, said = np.random.default_rng(seed), toy.pairs.token_ids.copy()
    for row in said[:15]:
        row[rng.integers(0, said.shape[1])] = rng.choice([toy.ids.eos_id, toy.ids.pad_id, 5])
    denoiser = oracle(toy, toy.pairs)
    denoiser.x_0 = torch.from_numpy(said).long()
    figures = measure(toy, denoiser, toy.pairs)
    originals, recovered = ([toy.tokenizer.content(row) for row in ids.tolist()] for ids in (toy.pairs.token_ids, said))
    assert figures.token_accuracy == pytest.approx(token_accuracy(originals, recovered).value)
    assert figures.exact_match == pytest.approx(exact_match(originals, recovered).value)
    assert 0.25 <= figures.exact_match < 1
    content = ~np.isin(toy.pairs.token_ids, (toy.ids.eos_id, toy.ids.pad_id))
    uncut = ((said == toy.pairs.token_ids) & content).sum() / content.sum()
    assert figures.token_accuracy < uncut


# --- a trimmed vocabulary


@pytest.fixture
def trimmed(toy):
    """The vocabulary without two words, the texts in its ids, and how many of their content tokens it lacks."""
    lost = [toy.tokenizer.encode([word])[0][0] for word in WORDS[:2]]
    kept = np.setdiff1d(np.arange(toy.tokenizer.vocab_size), lost)
    vocabulary = Vocabulary(kept, toy.tokenizer.vocab_size, toy.tokenizer.unknown_id)
    content = ~np.isin(toy.pairs.token_ids, (toy.ids.eos_id, toy.ids.pad_id))
    share = np.isin(toy.pairs.token_ids, lost).sum() / content.sum()
    assert 0.02 < share < 0.3
    return vocabulary, toy.pairs.renumbered(vocabulary), share


class Unlearnt:
    """An oracle that has never seen `other`: its share of the probability is as good as none."""

    def __init__(self, pairs, vocabulary, sure):
        x_0 = torch.from_numpy(pairs.token_ids).long()
        self.oracle = OracleDenoiser(torch.from_numpy(pairs.embeddings).float(), x_0, vocabulary.size, sure)
        self.other_id = vocabulary.other_id

    def __call__(self, *asked):
        log_probability = self.oracle(*asked)
        log_probability[..., self.other_id] = -1e4
        return log_probability


def measure_trimmed(toy, denoiser, pairs, vocabulary, other_id):
    ends = vocabulary.ends(toy.ids.eos_id, toy.ids.pad_id)
    return validate(denoiser, pairs, TokenIds(vocabulary.size, *ends, other_id), 1, Share())


def test_tokens_that_the_model_lacks_count_in_no_nelbo_and_are_told(toy, trimmed):
    vocabulary, pairs, share = trimmed
    many = pairs.take(np.arange(20).repeat(40))
    denoiser = Unlearnt(pairs, vocabulary, 0.5)
    figures = measure_trimmed(toy, denoiser, many, vocabulary, vocabulary.other_id)
    assert figures.nats == pytest.approx(np.log(2), rel=0.05)
    assert figures.unknown == pytest.approx(share)
    assert figures.as_row()["unknown_tokens"] == figures.unknown
    assert measure_trimmed(toy, denoiser, many, vocabulary, None).nats > 100 * share  # counted, they are all there is


def test_tokens_that_the_model_lacks_are_never_right(toy, trimmed):
    vocabulary, pairs, share = trimmed
    sure = OracleDenoiser(
        torch.from_numpy(pairs.embeddings).float(), torch.from_numpy(pairs.token_ids).long(), vocabulary.size
    )

    def rather_a_word_than_an_end(*asked):  # where `other` is barred all else is equal, and an end would cut the text
        log_probability = sure(*asked)
        log_probability[..., 5] += 1e-3
        return log_probability

    figures = measure_trimmed(
        toy, rather_a_word_than_an_end, pairs.take(np.arange(20).repeat(40)), vocabulary, vocabulary.other_id
    )
    assert figures.token_accuracy == pytest.approx(1 - share)
    assert figures.masked_accuracy[0.5] == pytest.approx(1 - share, abs=0.02)
    with_other = (pairs.token_ids == vocabulary.other_id).any(axis=1).mean()
    assert 0 < figures.exact_match == pytest.approx(1 - with_other)


def test_whole_vocabulary_has_no_share_of_unknown_tokens(toy):
    figures = measure(toy, oracle(toy, toy.pairs), toy.pairs)
    assert figures.unknown is None
    assert "unknown_tokens" not in figures.as_row()


# --- memory


class Watching:
    """Passes questions on to a model; keeps the size of the largest answer."""

    def __init__(self, model):
        self.model, self.largest, self.calls = model, 0, 0

    def __call__(self, *asked):
        answer = self.model(*asked)
        self.largest, self.calls = max(self.largest, answer.numel()), self.calls + 1
        return answer


def test_figures_are_the_same_however_few_logits_are_held_at_once(toy, monkeypatch):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    at_once, little = Watching(awaken(engine.model)), Watching(engine.model)
    dense = measure(toy, at_once, toy.pairs)
    room = 3 * toy.pairs.token_ids.shape[1] * toy.tokenizer.vocab_size  # three texts
    monkeypatch.setattr(parts, "LOGITS_AT_ONCE", room)
    bounded = measure(toy, little, toy.pairs)
    assert little.largest <= room < at_once.largest
    assert little.calls > 2 * at_once.calls
    assert (bounded.nats, bounded.n) == (pytest.approx(dense.nats, rel=1e-5), 20)
    assert (bounded.token_accuracy, bounded.exact_match) == (dense.token_accuracy, dense.exact_match)
    assert bounded.masked_accuracy == dense.masked_accuracy
