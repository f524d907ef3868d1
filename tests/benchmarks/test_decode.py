"""benchmarks/decode.py measures what it says; its figures mean nothing at this size."""

import json
import sys

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import decode, decode_quality, decode_speed
from embinv.encoders.hashing import HashEncoder
from embinv.inverter import load_inverter
from embinv.metrics.tokens import token_accuracy
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.packed import packs
from embinv.models.reduced import ARITHMETIC
from embinv.models.settings import ModelSettings
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer, write_pairs

SPEC = hash_spec(16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    pairs, recipe = pairs_of(sentences(40), tokenizer, HashEncoder(SPEC)), recipe_for(tokenizer, SPEC)
    for split, rows in (("test", np.arange(20)), ("validation", np.arange(20, 40))):
        write_pairs(folder / "pairs", recipe, pairs.take(rows), split)
    unlike = pairs_of(["maps maps maps maps", "books keys books keys"], tokenizer, HashEncoder(SPEC))
    write_pairs(folder / "pairs", recipe, unlike, "train")
    return folder, pairs.take(np.arange(20)), tokenizer


def test_every_way_is_measured_at_every_budget_and_the_best_is_named(made, monkeypatch, capsys):
    folder, test, tokenizer = made
    monkeypatch.setattr(decode_quality, "BUDGETS", (1, 2))
    arguments = ["quality", "--checkpoint", str(folder / "checkpoint"), "--data", str(folder / "pairs"), "--table"]
    monkeypatch.setattr(sys, "argv", ["decode.py", *arguments, "--repeats", "1", "--threads", "1"])
    decode.main()
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert set(result["ways"]) == set(decode_quality.WAYS)
    for by_budget in result["ways"].values():
        assert list(by_budget) == ["1", "2", "8"]
    for budget, name in result["best"].items():
        accuracies = [found[budget]["token_accuracy"] for found in result["ways"].values()]
        assert result["ways"][name][budget]["token_accuracy"] == max(accuracies)
    originals = [tokenizer.content(ids) for ids in test.token_ids.tolist()]
    said = load_inverter(folder / "checkpoint").invert(test.embeddings, steps=2)
    accuracy = token_accuracy(originals, [inversion.token_ids for inversion in said]).value
    assert result["ways"]["confidence"]["2"]["token_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert result["speedup_8_over_L"] > 0 and 0 <= result["expected_calibration_error"] <= 1
    assert result["held_out_texts"] == 20 and result["calibration_texts"] == 20
    table = out.splitlines()[: len(result["ways"]) + 2]
    assert {line.count("|") for line in table} == {5}


def test_the_gap_is_that_between_8_and_l_passes(made, monkeypatch):
    folder, _, _ = made
    accuracy = {"8": 0.5, "L": 0.625}

    def figures(inverter, texts, name, way):
        return {"token_accuracy": accuracy["8" if way.steps == 4 else "L"]}

    monkeypatch.setattr(decode_quality, "_figures", figures)
    monkeypatch.setattr(decode_quality, "USUAL", 4)
    monkeypatch.setattr(decode_quality, "_speedup", lambda *_: 3.0)
    found = decode_quality.measure_quality(folder / "checkpoint", folder / "pairs", 20, 1, 1)
    assert found["accuracy_gap_points"] == 12.5


def test_checkpoint_of_another_recipe_is_refused(made, tmp_path, monkeypatch, capsys):
    folder, _, tokenizer = made
    other = hash_spec(8)
    tiny_checkpoint(tmp_path / "checkpoint", tokenizer, other)
    arguments = ["quality", "--checkpoint", str(tmp_path / "checkpoint"), "--data", str(folder / "pairs")]
    monkeypatch.setattr(sys, "argv", ["decode.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        decode.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_speed_has_a_rate_for_every_batch_and_shares_of_one_whole(monkeypatch):
    monkeypatch.setattr(decode_speed, "SECONDS", 0.01)
    monkeypatch.setattr(decode_speed, "BATCHES", (1, 4))
    found = decode_speed.speed_of("tiny", 8, torch.get_num_threads(), 1)
    assert found["inversions_per_second"].keys() == {"1", "4"}
    assert all(rate > 0 for rate in found["inversions_per_second"].values())
    assert 0 < found["model_share"] < 1
    assert found["model_share"] + sum(found["rest"].values()) <= 1.01
    assert list(found["rest"].values()) == sorted(found["rest"].values(), reverse=True)


def model_of(size, precision, seq_len=32):
    """A model as the benchmark makes it, and its architecture."""
    settings = ModelSettings.model_validate({"size": size})
    config = settings.resolve(decode_speed.VOCABULARY, decode_speed.DIM, seq_len)
    torch.manual_seed(0)
    return ARITHMETIC[precision](ConditionalMDLM(config).eval()), config


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_random_weights_take_all_their_passes(precision):
    model, config = model_of("tiny", precision)
    calls = []

    def counted(z_t, embedding, positions):
        calls.append(len(z_t))
        return model(z_t, embedding, positions)

    decode_speed.decode_once(counted, config, 4)
    assert calls == [4] * decode_speed.PASSES


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_product_and_every_softmax_of_attention_is_counted_once(precision):
    model, config = model_of("tiny", precision)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        decode_speed.decode_once(model, config, 4)
    counts = {event.key: event.count for event in profiled.key_averages()}
    condition, pseudo_tokens, final_modulation, head = 2, 1, 1, 1
    maps = 2 if precision == "bfloat16" and packs(torch.device("cpu")) else 4  # queries, keys and values in one
    block = maps + 2 + 2 + 1  # of attention, its two products, the feed-forward's maps, the modulation
    products = condition + pseudo_tokens + final_modulation + head + config.layers * block
    assert sum(counts.get(name, 0) for name in decode_speed.PRODUCTS) == decode_speed.PASSES * products
    assert sum(counts.get(name, 0) for name in decode_speed.ATTENTION) == decode_speed.PASSES * config.layers


def test_ways_differ():
    assert len(set(decode_quality.WAYS.values())) == len(decode_quality.WAYS)
