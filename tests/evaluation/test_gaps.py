import numpy as np
import pytest
import torch

from embinv.data.vocabulary import Vocabulary
from embinv.encoders.hashing import HashEncoder
from embinv.evaluation.gaps import accuracy_at_masks
from tests.fakes import OracleDenoiser, hash_spec, pairs_of, sentences, word_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    return tokenizer, pairs_of(sentences(150), tokenizer, HashEncoder(hash_spec(16)))


class Watched:
    """An oracle over given texts that keeps what it was shown."""

    def __init__(self, pairs, x_0, vocab_size):
        self.oracle = OracleDenoiser(
            torch.from_numpy(pairs.embeddings).float(), torch.from_numpy(x_0).long(), vocab_size
        )
        self.seen = []

    def __call__(self, z_t, embedding, positions=None):
        self.seen.append((z_t, positions))
        return self.oracle(z_t, embedding, positions)


def measured(made, x_0, vocabulary, **options):
    tokenizer, pairs = made
    denoiser = Watched(pairs, x_0, vocabulary.size)
    ends = (tokenizer.eos_id, tokenizer.pad_id)
    return accuracy_at_masks(denoiser, pairs, ends, vocabulary, torch.device("cpu"), **options), denoiser


def test_who_knows_the_text_fills_every_gap_and_sees_all_but_the_hidden_content(made):
    tokenizer, pairs = made
    figures, denoiser = measured(made, pairs.token_ids, Vocabulary.whole(tokenizer.vocab_size))
    assert {name: figure.value for name, figure in figures.items()} == {
        "accuracy_at_10%_mask": 1.0,
        "accuracy_at_50%_mask": 1.0,
        "accuracy_at_100%_mask": 1.0,
    }
    content = ~np.isin(pairs.token_ids, (tokenizer.eos_id, tokenizer.pad_id))
    assert figures["accuracy_at_100%_mask"].n == len(pairs)
    hidden = [sum(int(positions.sum()) for _, positions in denoiser.seen[k::3]) / content.sum() for k in range(3)]
    assert hidden == [pytest.approx(0.1, abs=0.03), pytest.approx(0.5, abs=0.05), 1.0]
    for z_t, positions in denoiser.seen:
        assert (z_t[positions] == tokenizer.vocab_size).all() and (z_t[~positions] < tokenizer.vocab_size).all()


def test_accuracy_is_the_share_of_hidden_tokens_that_were_right(made):
    tokenizer, pairs = made
    said = pairs.token_ids.copy()
    said[:, 0] = 2
    figures, _ = measured(made, said, Vocabulary.whole(tokenizer.vocab_size), masks=(1.0,))
    content = (~np.isin(pairs.token_ids, (tokenizer.eos_id, tokenizer.pad_id))).sum()
    assert figures["accuracy_at_100%_mask"].value == pytest.approx(1 - len(pairs) / content)


def test_a_token_outside_the_vocabulary_is_never_right(made):
    tokenizer, pairs = made
    lost = int(np.bincount(pairs.token_ids[:, 0]).argmax())
    kept = np.setdiff1d(np.arange(tokenizer.vocab_size), [lost])
    vocabulary = Vocabulary(kept, tokenizer.vocab_size, tokenizer.unknown_id)
    figures, _ = measured(made, vocabulary.compact(pairs.token_ids), vocabulary, masks=(1.0,))
    content = ~np.isin(pairs.token_ids, (tokenizer.eos_id, tokenizer.pad_id))
    share = (pairs.token_ids[content] == lost).mean()
    assert figures["accuracy_at_100%_mask"].value == pytest.approx(1 - share)


def test_a_mask_that_hides_nothing_has_no_figure(made):
    tokenizer, pairs = made
    figures, _ = measured(made, pairs.token_ids, Vocabulary.whole(tokenizer.vocab_size), masks=(1e-9, 0.5))
    assert figures.keys() == {"accuracy_at_50%_mask"}
