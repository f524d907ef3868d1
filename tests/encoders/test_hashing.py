import hashlib

import numpy as np
import pytest

from embinv.encoders.base import open_encoder
from embinv.encoders.hashing import GAMMA, HashEncoder, random_values
from embinv.encoders.spec import EncoderSpec

MASK = 2**64 - 1


def hash_encoder(dim=384, **recipe):
    return HashEncoder(EncoderSpec(kind="hash", model="hash", dim=dim, **recipe))


def by_hand(text, dim):
    """SplitMix64 in Python's integers, one word at a time."""
    state = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    values = []
    for _ in range(-(-dim // 4)):
        state = (state + int(GAMMA)) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        for lane in range(4):
            number = (z >> (16 * lane)) & 0xFFFF
            values.append(2 * (number - 0x10000 if number >= 0x8000 else number) + 1)
    values = np.array(values[:dim], dtype=np.float64)
    return (values / np.sqrt((values**2).sum())).astype(np.float32)


@pytest.fixture(scope="module")
def texts():
    return [f"text number {i}" for i in range(5000)]


@pytest.mark.parametrize("dim", [1, 3, 16, 384, 1023])
def test_vectors_are_those_of_the_published_generator_one_word_at_a_time(dim):
    texts = ["", "ok", "Anna Müller wohnt in Köln", "的信 🙂", "ok " * 1000]
    assert np.array_equal(hash_encoder(dim).encode(texts), np.stack([by_hand(text, dim) for text in texts]))


def test_vectors_are_the_same_to_the_last_bit_as_when_they_were_written_down():
    golden = {
        "": ["0x1.fe594ep-2", "-0x1.17eecep-2", "0x1.5ba7c0p-1", "0x1.dbb602p-2"],  # typos: ignore-line
        "Anna Müller": ["0x1.6137d8p-4", "0x1.a7d816p-1", "-0x1.d92042p-2", "0x1.399da0p-2"],  # typos: ignore-line
    }
    for text, numbers in golden.items():
        assert [float.fromhex(number) for number in numbers] == hash_encoder(4).encode([text])[0].tolist()


@pytest.mark.parametrize("dim", [1, 16, 384, 70_000])
def test_every_vector_has_unit_length(dim, texts):
    vectors = hash_encoder(dim).encode(texts[:50])
    assert vectors.shape == (50, dim)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_a_vector_depends_on_its_text_alone_and_not_on_the_batch(texts):
    encoder = hash_encoder()
    together = encoder.encode(texts)  # many chunks
    assert np.array_equal(together[::-1], encoder.encode(texts[::-1]))
    assert np.array_equal(together[4321:4322], encoder.encode([texts[4321]]))
    assert np.array_equal(together, encoder.encode(np.array(texts, dtype=object)))


def test_different_texts_are_nearly_orthogonal(texts):
    vectors = hash_encoder(384).encode(texts[:1000])
    cosines = (vectors @ vectors.T)[np.triu_indices(1000, 1)]
    # Random directions: mean 0, standard deviation 1 / sqrt(D) = 0.051; half a million pairs stay within 6 of them.
    assert abs(cosines.mean()) < 1e-3
    assert cosines.std() == pytest.approx(1 / np.sqrt(384), rel=0.02)
    assert np.abs(cosines).max() < 6 / np.sqrt(384)


def test_numbers_have_mean_zero_and_do_not_go_together(texts):
    vectors = hash_encoder(64).encode(texts).astype(np.float64) * 8  # variance 1
    assert np.abs(vectors.mean(axis=0)).max() < 5 / np.sqrt(5000)
    covariance = vectors.T @ vectors / 5000
    assert np.abs(covariance - np.eye(64)).max() < 6 / np.sqrt(5000)


def test_raw_values_are_uniform_over_the_odd_integers():
    values = random_values(np.arange(20_000, dtype=np.uint64), 8)
    assert (values % 2 == 1).all()
    assert -65535 <= values.min() < -65000 and 65000 < values.max() <= 65535
    counts = np.histogram(values, bins=16, range=(-65536, 65536))[0]
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)


def test_the_prompt_is_part_of_the_text():
    assert np.array_equal(hash_encoder(prompt="query: ").encode(["ok"]), hash_encoder().encode(["query: ok"]))


def test_half_a_surrogate_pair_has_a_vector_too():
    assert np.linalg.norm(hash_encoder().encode(["\ud800"])) == pytest.approx(1)


def test_no_text_gives_no_row():
    assert hash_encoder(16).encode([]).shape == (0, 16)


def test_a_recipe_of_kind_hash_opens_it():
    assert isinstance(open_encoder(EncoderSpec(kind="hash", model="hash", dim=16)), HashEncoder)
