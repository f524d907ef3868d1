from collections import Counter

import numpy as np
import pytest

from embinv.encoders.hashing import HashEncoder
from embinv.evaluation.baselines import derangement, nearest_neighbours, unconditional
from tests.fakes import hash_spec, pairs_of, sentences, word_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    encoder, texts = HashEncoder(hash_spec(16)), sentences(60)
    return tokenizer, pairs_of(texts[:20], tokenizer, encoder), pairs_of(texts[20:], tokenizer, encoder)


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_shuffle_gives_every_row_another_rows_vector_and_uses_each_once(n):
    for seed in range(20):
        order = derangement(n, seed)
        assert sorted(order.tolist()) == list(range(n))
        assert (order != np.arange(n)).all()


def test_shuffle_is_fixed_by_its_seed():
    assert derangement(50, 1).tolist() == derangement(50, 1).tolist() != derangement(50, 2).tolist()


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_nearest_neighbours_equal_brute_force_whatever_the_block(made, block):
    tokenizer, test, training = made
    training = training.take(np.arange(40))
    scaled = training.embeddings * np.linspace(0.2, 3, 40, dtype=np.float16)[:, None]  # cosine, not dot product
    training = type(training)(training.ids, training.texts, training.langs, training.token_ids, scaled)
    vectors = test.embeddings.astype(np.float32)
    expected = []
    for query in vectors.astype(np.float64):
        keys = scaled.astype(np.float64)
        cosines = [key @ query / np.linalg.norm(key) / np.linalg.norm(query) for key in keys]
        expected.append((int(np.argmax(cosines)), max(cosines)))
    found = nearest_neighbours(vectors, training, tokenizer, block=block)
    assert [inversion.text for inversion in found] == [training.texts[row] for row, _ in expected]
    assert [i.confidence for i in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert [i.token_ids for i in found] == [tokenizer.content(training.token_ids[row].tolist()) for row, _ in expected]


def test_unconditional_text_is_the_commonest_token_at_each_place(made):
    tokenizer, _, training = made
    contents = [tokenizer.content(row) for row in training.token_ids.tolist()]
    found = unconditional(training, tokenizer)
    assert len(found.token_ids) == sorted(map(len, contents))[(len(contents) - 1) // 2]
    for place, token in enumerate(found.token_ids):
        counts = Counter(text[place] for text in contents if len(text) > place)
        assert counts[token] == max(counts.values())
        assert token == min(each for each, count in counts.items() if count == counts[token])
    assert found.text == tokenizer.decode(found.token_ids)


def test_no_fixed_text_has_more_tokens_right_on_the_training_texts(made):
    tokenizer, _, training = made
    contents = [tokenizer.content(row) for row in training.token_ids.tolist()]
    best = unconditional(training, tokenizer).token_ids

    def right(said):
        return sum(a == b for text in contents for a, b in zip(text, said, strict=False))

    rng = np.random.default_rng(0)
    for _ in range(200):
        other = list(best)
        other[rng.integers(len(other))] = int(rng.integers(3, tokenizer.vocab_size))
        assert right(other) <= right(best)
