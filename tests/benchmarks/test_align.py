"""benchmarks/align.py measures every space; its figures mean nothing at this size, but bounds hold."""

import json
import sys

import numpy as np
import pytest

from benchmarks import align
from embinv.encoders.hashing import HashEncoder
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, tiny_checkpoint, unit_vectors, word_tokenizer
from tests.fakes import write_pairs as write

SPEC = hash_spec(16)
TEXTS = sentences(4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    pairs, recipe = pairs_of(sentences(120), tokenizer, HashEncoder(SPEC)), recipe_for(tokenizer, SPEC)
    write(folder / "pairs", recipe, pairs.take(np.arange(20)), "test")
    write(folder / "pairs", recipe, pairs.take(np.arange(20, 120)), "train")
    return folder


def run(made, monkeypatch, *more):
    paths = ["--checkpoint", str(made / "checkpoint"), "--data", str(made / "pairs")]
    monkeypatch.setattr(sys, "argv", ["align.py", *paths, "--rows", "20", "--threads", "1", *more])
    align.main()


def test_every_space_is_measured_at_every_number_of_known_pairs(made, monkeypatch, capsys):
    run(made, monkeypatch, "--known-pairs", "20,60", "--table")
    out = capsys.readouterr().out.splitlines()
    result = json.loads(out[-1])
    assert result["benchmark"] == "align" and result["held_out_texts"] <= 20
    for space in result["spaces"].values():
        assert [row["known_pairs"] for row in space["by_known_pairs"]] == [20, 60]
        assert ("unmapped" in space) == (space["dimensions"] == 16)
    assert {line.count("|") for line in out[: len(result["spaces"]) + 2]} == {6}
    turned, own = result["spaces"]["secret rotation"]["by_known_pairs"][1], result["references"]["own"]
    assert turned["cosine"] == 1.0 and turned["token_f1"] == own["token_f1"]
    kept = result["spaces"]["int8"]["by_known_pairs"]
    assert [row["map"] for row in kept] == ["unchanged", "unchanged"] and kept[0]["cosine"] > 0.99
    assert result["spaces"]["random projection to 256"]["dimensions"] == 256


def test_one_space_can_be_asked_for_and_gives_the_same_again(made, monkeypatch, capsys):
    results = []
    for _ in range(2):
        run(made, monkeypatch, "--known-pairs", "20", "--space", "binary")
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1] and list(results[0]["spaces"]) == ["binary"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--known-pairs", "500"], "lower --known-pairs"),
        (["--known-pairs", "5"], "5 known pairs: give numbers from 10"),
    ],
)
def test_numbers_that_the_pairs_do_not_have_end_with_one_sentence(made, monkeypatch, capsys, more, sentence):
    with pytest.raises(SystemExit):
        run(made, monkeypatch, *more)
    assert sentence in capsys.readouterr().err.splitlines()[-1]


# The spaces


def test_spaces_are_what_their_names_say():
    vectors = unit_vectors(4, 16)
    made = {name: space(vectors, TEXTS) for name, space in align.spaces(16, sentences(60), 0).items()}
    assert set(np.unique(made["binary"])) == {-1, 1} and (np.sign(vectors) == made["binary"]).all()
    assert (made["int8"] == np.rint(made["int8"])).all() and np.abs(made["int8"]).max(axis=1).tolist() == [127] * 4
    assert made["secret rotation"] @ made["secret rotation"].T == pytest.approx(vectors @ vectors.T, abs=1e-5)
    assert made["random projection to 768"].shape == (4, 768)
    assert (made["hash"] == HashEncoder(SPEC).encode(TEXTS)).all()


def test_a_cut_keeps_the_first_dimensions_at_unit_length():
    vectors = unit_vectors(4, 16)
    cut = align.cut(6)(vectors, TEXTS)
    assert np.linalg.norm(cut, axis=1) == pytest.approx(1)
    assert cut / cut[:, :1] == pytest.approx(vectors[:, :6] / vectors[:, :1], rel=1e-4)


def test_lsa_brings_texts_of_the_same_words_together():
    space = align.lsa(sentences(60), 12, 0)
    one, same, other = space(np.empty((3, 16)), ["anna paid ben", "ben paid anna", "maps on four keys"])
    assert one == pytest.approx(same, abs=1e-6) and one @ other < 0.9 * one @ one
