"""Correctors and what comes of refining with them, for both families."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import embinv.dump_inverter
from embinv.cli import main
from embinv.correcting import RewritingCorrector, refined
from embinv.importing import import_vec2text
from embinv.inverter import load_inverter
from embinv.models.vec2text import save_vec2text
from tests.fakes import BagEncoder, hash_spec, sentences, tiny_checkpoint, word_tokenizer
from tests.t5 import DIM, tiny_config, tiny_inverter

SPEC = hash_spec(DIM)


@pytest.fixture(scope="module", params=["mdlm", "t5"])
def checkpoint(request, tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    folder = tmp_path_factory.mktemp(request.param) / "checkpoint"
    if request.param == "mdlm":
        kept = [number for number in range(tokenizer.vocab_size) if number not in (2, 6)]  # without `dan`
        tiny_checkpoint(folder, tokenizer, SPEC, seq_len=12, kept=kept)
    else:
        torch.manual_seed(0)
        config = tiny_config(rows=tokenizer.vocab_size, vocab_size=tokenizer.vocab_size)
        theirs = folder.with_name("theirs")
        save_vec2text(tiny_inverter(config, spread=0.4), theirs, "hash", tokenizer.source)
        import_vec2text(str(theirs), folder, "tiny", SPEC)
    return folder


@pytest.fixture(scope="module")
def inverter(checkpoint):
    return load_inverter(checkpoint, batch_size=5, precision="float32")


@pytest.fixture(scope="module")
def vectors():
    return BagEncoder(DIM).encode(sentences(6))


def texts_of(proposals):
    return [[each.text for each in row] for row in proposals]


def test_proposals_are_as_many_as_asked_and_keep_a_part(inverter, vectors):
    texts = sentences(6, seed=1)
    found = RewritingCorrector(inverter).propose(vectors, texts, vectors, 4)
    assert [len(row) for row in found] == [4] * 6
    written = texts_of(found)
    assert all(len(set(row)) > 1 for row in written)
    assert all(text not in row or len(set(row)) > 1 for text, row in zip(texts, written, strict=True))
    shared = [
        len(set(text.split()) & set(each.split())) for text, row in zip(texts, written, strict=True) for each in row
    ]
    assert np.mean(shared) > 1.5
    for each in (each for row in found for each in row):
        assert len(each.token_confidence) == len(each.token_ids) and 0 < each.confidence <= 1
        assert each.probability is None


def test_proposals_depend_on_vector_hypothesis_and_seed_alone(inverter, vectors):
    texts = sentences(6, seed=1)
    together = texts_of(RewritingCorrector(inverter).propose(vectors, texts, vectors, 3))
    alone = [
        texts_of(RewritingCorrector(inverter).propose(vectors[i : i + 1], texts[i : i + 1], vectors, 3))[0]
        for i in range(6)
    ]
    assert together == alone
    assert together != texts_of(RewritingCorrector(inverter, seed=1).propose(vectors, texts, vectors, 3))
    assert together[0] != texts_of(RewritingCorrector(inverter).propose(vectors[:1], texts[1:2], vectors, 3))[0]


def test_texts_that_do_not_fit_are_cut_and_unknown_words_are_written_anew(inverter, vectors):
    long = " ".join(["anna"] * 40)
    [[cut], [unknown], [empty]] = RewritingCorrector(inverter).propose(
        vectors[:3], [long, "dan dan", ""], vectors[:3], 1
    )
    assert len(cut.token_ids) <= inverter.config.pairs.seq_len
    if inverter.vocabulary.trimmed:
        assert "dan" not in unknown.text
    assert isinstance(empty.text, str)


def test_refined_texts_are_nearer_and_say_what_they_cost(inverter, vectors):
    encoder = BagEncoder(DIM)
    first = inverter.invert(vectors, steps=4)
    told = refined(inverter, vectors, first, encoder, steps=0, beam=3)
    assert [each.text for each in told] == [each.text for each in first]
    assert [each.encoder_calls for each in told] == [1] * 6
    steps = []
    after = refined(inverter, vectors, first, encoder, steps=4, beam=3, on_progress=steps.append)
    before, now = np.array([each.cosine for each in told]), np.array([each.cosine for each in after])
    assert (now >= before).all() and (now - before).mean() > 0.05
    assert all(1 < each.encoder_calls <= 1 + 3 + 3 * 9 for each in after)
    assert all(each.probability is None and each.token_probability is None for each in after)
    assert steps[-1] == 6
    own = encoder.encode([each.text or " " for each in after])
    cosines = (own * vectors).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(vectors, axis=1)
    assert now == pytest.approx(cosines, abs=1e-5)


def test_several_first_ones_may_be_given_and_each_step_is_told(inverter, vectors):
    encoder, told = BagEncoder(DIM), []
    one, other = inverter.invert(vectors, steps=4), inverter.invert(vectors, steps=1)
    first = list(zip(one, other, strict=True))
    nearest = refined(inverter, vectors, first, encoder, steps=0, beam=2)
    alone = [refined(inverter, vectors, some, encoder, steps=0, beam=2) for some in (one, other)]
    assert [each.cosine for each in nearest] == [max(a.cosine, b.cosine) for a, b in zip(*alone, strict=True)]
    found = refined(inverter, vectors, first, encoder, 2, 2, on_step=lambda row, best: told.append((row, best)))
    for row, last in enumerate(found):
        own = [best for of, best in told if of == row]
        assert own[0] == nearest[row] and own[-1] == last and len(own) <= 3


def test_the_command_line_refines_a_dump(checkpoint, vectors, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embinv.dump_inverter, "open_told_encoder", lambda spec, device: BagEncoder(DIM))
    np.save(tmp_path / "dump.npy", vectors)
    common = ["invert", "--checkpoint", str(checkpoint), "--vectors", str(tmp_path / "dump.npy"), "--out"]
    main([*common, str(tmp_path / "plain.parquet")])
    main([*common, str(tmp_path / "refined.parquet"), "--refine-steps", "2", "--refine-beam", "2"])
    plain, better = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("plain", "refined"))
    assert plain.column_names == better.column_names
    assert plain["cosine"].null_count == plain["encoder_calls"].null_count == 6
    assert min(better["encoder_calls"].to_pylist()) >= 1 and max(better["cosine"].to_pylist()) <= 1.0001
    assert "inverted 6 of 6" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, str(tmp_path / "no.parquet"), "--refine-steps", "-1"])
    assert "-1 is no whole number from 0" in capsys.readouterr().err


def test_the_command_line_refines_a_text(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(embinv.dump_inverter, "open_told_encoder", lambda spec, device: BagEncoder(DIM))
    main(["invert", "--checkpoint", str(checkpoint), "--text", "anna paid three coins", "--refine-steps", "2"])
    assert "cosine of the two vectors" in capsys.readouterr().out
