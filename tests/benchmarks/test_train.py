"""benchmarks/train.py runs and ends with one JSON line; its figures mean nothing at this size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loops import UNDER_WAY, make_case, steady_rate, training_settings
from embinv.encoders.hashing import HashEncoder
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, word_tokenizer, write_pairs

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--sizes", "tiny", "--vocabularies", "500", "--batch", "16", "--seq-len", "16", "--seconds", "1"]
QUICK = [*TINY, "--repeats", "1", "--threads", "1"]


def test_rate_is_counted_from_when_a_loop_is_under_way():
    slow_start = [(1, UNDER_WAY - 0.5), (2, UNDER_WAY + 0.5), (12, UNDER_WAY + 5.5), (22, UNDER_WAY + 10.5)]
    assert steady_rate(iter(slow_start), batch=8, seconds=10.0) == pytest.approx(16.0)
    assert steady_rate(iter(slow_start), batch=8, seconds=4.0) == pytest.approx(16.0)
    with pytest.raises(ValueError, match="over before it was under way"):
        steady_rate(iter(slow_start[:2]), batch=8, seconds=1.0)


def test_both_loops_get_the_default_recipe_and_equal_sizes():
    case = make_case("small", 6000, 32, ["training.learning_rate=0.5"], 1, 1.0, optimizer="adamw", batch_size=64)
    assert (case.training.learning_rate, case.training.optimizer) == (0.5, "adamw")
    assert case.training.weight_decay == training_settings([]).weight_decay
    assert (case.model.hidden, case.model.vocab_size, case.model.seq_len) == (256, 6000, 32)
    pairs = case.pairs()
    assert len(pairs) % 64 == 0
    assert pairs.token_ids.max() < 6000


def run(*arguments):
    """The script's one JSON object."""
    done = subprocess.run(
        [sys.executable, "benchmarks/train.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["benchmark"] == "train"
    return result


def mistake(*arguments):
    """What it says of a user's mistake."""
    done = subprocess.run(
        [sys.executable, "benchmarks/train.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_speedup_is_the_least_of_its_cases_with_the_configs_optimizer():
    result = run("speedup_vs_reference_loop", *QUICK, "--vocabularies", 500, 2000)
    assert result["optimizer"] == training_settings([]).optimizer
    assert [case["vocabulary"] for case in result["cases"]] == [500, 2000]
    for case in result["cases"]:
        for optimizer in ("muon", "adamw"):
            ratio = case[f"{optimizer}_samples_per_second"] / case["reference_samples_per_second"]
            assert case[f"speedup_{optimizer}"] == pytest.approx(ratio, rel=0.05)
    chosen = [case[f"speedup_{result['optimizer']}"] for case in result["cases"]]
    assert result["speedup_vs_reference_loop"] == min(chosen)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_utilisation_is_a_share_of_a_plain_product():
    result = run("utilisation", *QUICK)
    figures = result["sizes"]["tiny"]
    assert result["utilisation"] == figures["utilisation"]
    assert 0 < figures["utilisation"] < 1
    achieved = figures["samples_per_second"] * figures["gigaflops_a_text"] / 1e3
    assert figures["teraflops_per_second"] == pytest.approx(achieved, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fused_head_takes_less_memory_than_a_dense_one():
    result = run("head_memory", "--positions", 1536)
    assert result["vocabulary"] == 152_000
    assert result["head_memory"] == max(result["ratios"].values()) < 1
    dense = result["peak_mb"]["float32"]["dense"]
    assert dense > 2 * 4 * 1536 * 152_000 / 1e6  # the logits and one copy of them at least


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quality_is_the_ratio_of_two_measured_accuracies(tmp_path):
    tokenizer = word_tokenizer(tmp_path / "words")
    pairs = pairs_of(sentences(40), tokenizer, HashEncoder(hash_spec(16)))
    for split in ("train", "test"):
        write_pairs(tmp_path / "pairs", recipe_for(tokenizer, hash_spec(16)), pairs, split)
    result = run("quality_at_equal_time", *QUICK, "--data", tmp_path / "pairs", "--minutes", 0.1, "--test-rows", 20)
    ours, reference = result["token_accuracy"], result["reference_token_accuracy"]
    assert ours > 0
    assert result["ours"]["n"] == result["reference"]["n"] == 20
    if reference:
        assert result["quality_at_equal_time"] == pytest.approx(ours / reference, abs=0.01)
    assert result["minutes"] == 0.1


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers of one thread need two cores")
def test_workers_are_compared_with_the_bare_loop():
    result = run("ddp_efficiency", *QUICK)
    one, two = result["one_worker_samples_per_second"], result["two_workers_samples_per_second"]
    assert result["ddp_efficiency"] == pytest.approx(two / (2 * one), rel=0.05)
    assert result["ray_overhead"] == pytest.approx(one / result["bare_samples_per_second"], rel=0.05)


@pytest.mark.slow
def test_mistakes_are_told_in_a_sentence(tmp_path):
    assert mistake("quality_at_equal_time", "--data", tmp_path).startswith("error: ")
    assert "unknown key training.rate" in mistake("utilisation", "--set", "training.rate=1")
    assert "lower --positions" in mistake("head_memory", "--positions", 10**7)
