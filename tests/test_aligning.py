"""Inversion through a map, with an oracle that knows the text of each vector, so that only the map can be at fault."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embinv.aligning import KnownPairs, invert_through, known_pairs, measure_alignment
from embinv.checkpoint import Checkpoint, load_checkpoint
from embinv.encoders.hashing import HashEncoder
from embinv.inverter import DiffusionInverter
from embinv.metrics.tokens import token_f1
from embinv.spaces.choosing import choose_map, row_cosines
from embinv.spaces.linear import LinearMap
from tests.fakes import (
    OracleDenoiser,
    OracleModel,
    hash_spec,
    pairs_of,
    sentences,
    tiny_checkpoint,
    unit_vectors,
    word_tokenizer,
)

SPEC = hash_spec(16)
TEXTS = sentences(150)


@pytest.fixture(scope="module")
def inverter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    loaded = load_checkpoint(folder / "checkpoint")
    pairs = pairs_of(TEXTS, tokenizer, HashEncoder(SPEC))
    x_0 = torch.from_numpy(loaded.vocabulary.compact(pairs.token_ids)).long()
    oracle = OracleModel(OracleDenoiser(torch.from_numpy(pairs.embeddings).float(), x_0, loaded.vocabulary.size))
    return DiffusionInverter(Checkpoint(loaded.config, oracle, loaded.tokenizer, loaded.vocabulary))


@pytest.fixture(scope="module")
def own():
    return HashEncoder(SPEC).encode(TEXTS)


def turned(vectors, dim=16):
    """A secret rotation, then as many dimensions as asked for."""
    return (vectors @ np.linalg.qr(np.random.default_rng(7).normal(size=(16, 16)))[0][:, :dim]).astype(np.float32)


def pairs_with(unknown, own):
    return KnownPairs(TEXTS, unknown, own, {})


@pytest.fixture(scope="module")
def measured(inverter, own):
    return measure_alignment(inverter, pairs_with(turned(own), own), (10, 50, 120), 30)


def test_a_rotation_hides_nothing_from_as_many_known_pairs_as_dimensions(measured):
    by_known = {each.known: each for each in measured.by_known}
    for known in (50, 120):
        assert by_known[known].figures["token_f1"].value == by_known[known].figures["exact_match"].value == 1
        assert by_known[known].figures["cosine"].value == pytest.approx(1, abs=1e-5)
        assert by_known[known].chosen is not None and by_known[known].chosen.name == "procrustes"
    assert by_known[10].figures["cosine"].value < 0.9


def test_references_stand_above_and_below(measured):
    figures = {name: each.figures for name, each in measured.references.items()}
    assert figures["own"]["exact_match"].value == 1 and figures["own"]["cosine"].value == pytest.approx(1)
    assert figures["other"]["exact_match"].value == 0
    assert len({inversion.text for inversion in measured.references["mean"].inversions}) == 1
    assert figures["unmapped"]["exact_match"].value < 0.2
    assert {figure.n for each in figures.values() for figure in each.values()} == {30}


def test_figures_are_those_of_the_inversions(measured, inverter):
    originals = inverter.tokenizer.encode(measured.held_out.texts)
    for each in (*measured.by_known, *measured.references.values()):
        said = [inversion.token_ids for inversion in each.inversions]
        assert each.figures["token_f1"] == token_f1(originals, said)


def test_no_held_out_row_enters_a_fit(inverter, own):
    """Other vectors in the held-out rows change what is measured, but no map."""
    first = measure_alignment(inverter, pairs_with(turned(own), own), (40, 120), 30, seed=2)
    held = [TEXTS.index(text) for text in first.held_out.texts]
    spoilt = turned(own)
    spoilt[held] = unit_vectors(30, 16, seed=9)
    second = measure_alignment(inverter, pairs_with(spoilt, own), (40, 120), 30, seed=2)
    assert second.held_out.texts == first.held_out.texts
    for one, other in zip(first.by_known, second.by_known, strict=True):
        assert (one.chosen.map.weight == other.chosen.map.weight).all()
        assert one.chosen.scores == other.chosen.scores
        assert one.figures["cosine"].value > other.figures["cosine"].value + 0.5


def test_more_known_pairs_contain_the_fewer(inverter, own, monkeypatch):
    seen = []
    monkeypatch.setattr("embinv.aligning.choose_map", lambda x, y, seed: seen.append(x) or choose_map(x, y, seed))
    measure_alignment(inverter, pairs_with(turned(own), own), (20, 10, 40), 30)
    assert [len(rows) for rows in seen] == [10, 20, 40]
    assert (seen[2][:20] == seen[1]).all() and (seen[1][:10] == seen[0]).all()


def test_the_same_seed_measures_the_same_and_another_one_other_texts(inverter, own):
    pairs = pairs_with(turned(own), own)
    one, same, other = (measure_alignment(inverter, pairs, (20,), 30, seed=seed) for seed in (1, 1, 2))
    assert one.by_known[0].figures == same.by_known[0].figures and one.held_out.texts == same.held_out.texts
    assert one.held_out.texts != other.held_out.texts


@pytest.mark.parametrize("dim", [8, 16])
def test_what_needs_equal_dimensions_is_there_only_with_them(inverter, own, dim):
    found = measure_alignment(inverter, pairs_with(turned(own, dim), own), (50,), 30)
    assert ("unmapped" in found.references) == (dim == 16)
    assert set(found.by_known[0].figures) == {"token_f1", "exact_match", "bleu", "cosine"}


def test_unless_told_otherwise_a_fifth_is_held_out_and_all_others_are_the_last_number(inverter, own):
    found = measure_alignment(inverter, pairs_with(turned(own), own))
    assert len(found.held_out) == 30 and [each.known for each in found.by_known] == [50, 100, 120]


def test_texts_longer_than_the_inverter_writes_are_counted(inverter, own, measured):
    assert measured.beyond == 0
    long = pairs_with(turned(own), own)
    long = replace(long, texts=[*(" ".join([text, text]) for text in TEXTS[:75]), *TEXTS[75:]])
    found = measure_alignment(inverter, long, (20,), 60)
    assert found.beyond == sum(len(text.split()) > 7 for text in found.held_out.texts) > 10


def test_held_out_texts_that_a_known_one_nearly_is_are_not_measured_on(inverter, own):
    long = [" ".join(TEXTS[start : start + 5]) for start in range(0, 100, 5)]
    texts = [*long, *(f"{text} lost" for text in long), *TEXTS[40:]]
    held = np.random.default_rng(0).permutation(len(texts))[:30].tolist()
    other = {row: (row + 20) % 40 for row in range(40)}
    expected = [texts[row] for row in held if row not in other or other[row] in held]
    found = measure_alignment(inverter, replace(pairs_with(turned(own), own), texts=texts), (20, 120), 30)
    assert found.held_out.texts == expected and found.copies == 30 - len(expected) > 3
    assert {each.figures["cosine"].n for each in (*found.by_known, *found.references.values())} == {len(expected)}


def test_texts_that_are_all_nearly_the_same_cannot_be_measured_on(inverter, own):
    alike = replace(pairs_with(turned(own), own), texts=[f"{' '.join(TEXTS[:20])} {row}" for row in range(len(TEXTS))])
    with pytest.raises(ValueError, match="--held-out: of 30 pairs that are held out, 30 have texts that are nearly"):
        measure_alignment(inverter, alike, None, 30)


@pytest.mark.parametrize(
    ("counts", "held_out", "sentence"),
    [
        ((200,), 30, r"--known-pairs 200: .* from 10 to 120"),
        ((5, 50), 30, r"--known-pairs 5,50: .* from 10 to 120"),
        ((), 30, "--known-pairs"),
        (None, 1, "--held-out: 1 of 150"),
        (None, 145, "--held-out: 145 of 150 .* 5 are left"),
        (None, 200, "--held-out: 200 of 150"),
    ],
)
def test_numbers_that_the_pairs_do_not_have_are_refused_with_the_flag(inverter, own, counts, held_out, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure_alignment(inverter, pairs_with(turned(own), own), counts, held_out)


# Known pairs


def test_rows_that_say_nothing_or_stand_there_twice_are_left_out_and_counted(inverter):
    texts = ["anna paid", None, "  ", "ben lost", "ben owes", "Anna  paid", "carla sent", "dan lost"]
    vectors = unit_vectors(8, 5)
    vectors[3], vectors[4, 2] = 0, np.nan
    found = known_pairs(texts, vectors, HashEncoder(SPEC), inverter.tokenizer)
    assert found.texts == ["anna paid", "carla sent", "dan lost"]
    assert (found.unknown == vectors[[0, 6, 7]]).all()
    assert (found.own == HashEncoder(SPEC).encode(found.texts)).all()
    assert found.dropped == {"without text": 2, "vector zero or not finite": 2, "text of an earlier row": 1}


def test_of_two_rows_of_a_text_the_first_with_a_vector_stays(inverter):
    vectors = unit_vectors(3, 5)
    vectors[0] = 0
    found = known_pairs(["anna paid"] * 3, vectors, HashEncoder(SPEC), inverter.tokenizer)
    assert len(found) == 1 and (found.unknown == vectors[1:2]).all()


def test_texts_are_encoded_in_blocks_and_each_is_told_of(inverter):
    told, texts = [], sentences(300)
    found = known_pairs(texts, unit_vectors(300, 5), HashEncoder(SPEC), inverter.tokenizer, told.append)
    assert told == ["encoded 256 of 300 known texts", "encoded 300 of 300 known texts"]
    assert (found.own == HashEncoder(SPEC).encode(texts)).all()


def test_a_text_that_the_encoder_gives_no_vector_is_named(inverter):
    class Blind(HashEncoder):
        def encode(self, texts):
            return super().encode(texts) * np.array([[text != "ben lost"] for text in texts])

    with pytest.raises(ValueError, match="no vector; leave it out: 'ben lost'"):
        known_pairs(["anna paid", "ben lost"], unit_vectors(2, 5), Blind(SPEC), inverter.tokenizer)


def test_nothing_usable_is_no_pairs_and_unequal_counts_are_refused(inverter):
    encoder = HashEncoder(SPEC)
    assert known_pairs([None, ""], unit_vectors(2, 5), encoder, inverter.tokenizer).own.shape == (0, 16)
    with pytest.raises(ValueError, match=r"1 texts and vectors \[2, 5\]"):
        known_pairs(["anna"], unit_vectors(2, 5), encoder, inverter.tokenizer)


# Through the map


def test_a_dump_comes_back_through_the_map_and_bad_rows_are_none(inverter, own):
    vectors = turned(own)
    chosen = choose_map(vectors[:60], own[:60])
    rows = vectors[100:110].copy()
    rows[2], rows[5, 0] = 0, np.inf
    found = invert_through(inverter, chosen.map, rows)
    assert [each and each.text for each in found] == [
        None if place in (2, 5) else text for place, text in enumerate(TEXTS[100:110])
    ]
    assert invert_through(inverter, chosen.map, rows[[2, 5]]) == [None, None]
    assert row_cosines(chosen.map(vectors), own).min() > 0.999


def test_a_row_that_the_map_sends_to_nothing_is_none(inverter):
    nothing = LinearMap(np.zeros((16, 16)), np.zeros(16), np.zeros(16))
    assert invert_through(inverter, nothing, unit_vectors(3, 16)) == [None] * 3


def test_vectors_of_another_dimension_are_refused(inverter, own):
    with pytest.raises(ValueError, match=r"takes vectors \[N, 16\]"):
        invert_through(inverter, choose_map(own, own).map, unit_vectors(3, 5))
