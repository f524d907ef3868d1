"""benchmarks/train.py runs and ends with one JSON line; its figures mean nothing at this size."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import train
from benchmarks.loops import UNDER_WAY, Timed, make_case, start_reference, steady_rate, training_settings
from benchmarks.reference import ReferenceRecipe
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


def test_ours_gets_the_default_recipe_with_its_overrides():
    case = make_case("small", 6000, 32, ["training.learning_rate=0.5"], 1, 1.0, optimizer="adamw", batch_size=64)
    assert (case.training.learning_rate, case.training.optimizer) == (0.5, "adamw")
    assert case.training.weight_decay == training_settings([]).weight_decay
    assert (case.model.hidden, case.model.vocab_size, case.model.seq_len) == (256, 6000, 32)
    pairs = case.pairs()
    assert len(pairs) % 64 == 0
    assert pairs.token_ids.max() < 6000


def test_the_reference_gets_equal_widths_batch_and_seed_and_its_own_rates():
    overrides = ["training.learning_rate=0.5", "training.weight_decay=0.3"]
    case = make_case("small", 6000, 32, overrides, 1, 1.0, batch_size=64, seed=3)
    loop = start_reference(case)
    assert loop.recipe == ReferenceRecipe(batch_size=64, seed=3)
    config = loop.model.config
    assert (config.hidden, config.layers, config.heads, config.ffn) == (256, 4, 4, 1024)
    assert (config.vocab_size, config.seq_len, config.embedding_dim) == (6000, 32, 384)
    assert loop.precision == "float32"


# --- the measures, on sides that take no time


def flags(measure, *given):
    return train.command_line().parse_args([measure, *map(str, given)])


@pytest.fixture
def sides(monkeypatch):
    """Every call in a fresh process is noted, and answered as a loop of 10 samples a second and a core would."""
    asked = []

    def answer(function, case, *_):
        asked.append((function.__name__, case))
        return Timed(10.0 * (1 + len(asked)), 1000 + len(asked), case.training.precision)

    monkeypatch.setattr("benchmarks.processes.in_a_fresh_process", answer)
    return asked


def test_speedup_times_small_and_base_each_with_a_control_in_float32(sides):
    result = train.speedup_vs_reference_loop(
        flags("speedup_vs_reference_loop", "--repeats", 1, "--set", "training.precision=bfloat16-mixed")
    )
    cases = [(case["size"], case["vocabulary"], case["batch"]) for case in result["cases"]]
    assert cases == [("small", 6000, 128), ("small", 30522, 128), ("base", 6000, 128), ("base", 30522, 128)]
    per_case = [(name, case.training.optimizer, case.training.precision) for name, case in sides[1:4]]
    assert [name for name, _ in sides] == 4 * ["reference_rate", "our_rate", "our_rate", "our_rate"]
    assert per_case == [
        ("our_rate", "muon", "bfloat16-mixed"),
        ("our_rate", "adamw", "bfloat16-mixed"),
        ("our_rate", "muon", "float32"),
    ]
    first = result["cases"][0]
    assert (first["reference_samples_per_second"], first["reference_parameters"]) == (20.0, 1001)
    assert (first["muon_precision"], first["float32_precision"]) == ("bfloat16-mixed", "float32")
    assert (first["speedup_muon"], first["speedup_float32"]) == (1.5, 2.5)
    assert result["speedup_vs_reference_loop"] == min(case["speedup_muon"] for case in result["cases"])
    assert result["speedup_in_float32"] == min(case["speedup_float32"] for case in result["cases"])


def test_there_is_no_control_where_ours_computes_in_float32_anyway(sides):
    result = train.speedup_vs_reference_loop(
        flags("speedup_vs_reference_loop", "--repeats", 1, "--sizes", "tiny", "--set", "training.precision=float32")
    )
    assert "speedup_in_float32" not in result
    assert len(sides) == 2 * 3
    assert (result["device"], result["threads"]) == ("cpu", os.cpu_count())


def test_all_goes_on_past_a_measure_that_fails_and_says_so(monkeypatch, capsys):
    def broken(arguments):
        raise RuntimeError("a process died")

    measures = {"utilisation": broken, "head_memory": lambda arguments: {"head_memory": 0.3, "threads": 7}}
    monkeypatch.setattr(train, "MEASURES", measures)
    monkeypatch.setattr(sys, "argv", ["train.py", "all"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result["head_memory"] == 0.3
    assert result["measures"]["utilisation"] == {"error": "RuntimeError: a process died"}
    assert result["measures"]["head_memory"]["threads"] == 7
    assert not {"utilisation", "threads", "device"} & result.keys()
    assert "error: utilisation failed" in told.err


def test_all_ends_well_where_nothing_fails(monkeypatch, capsys):
    monkeypatch.setattr(train, "MEASURES", {"head_memory": lambda arguments: {"head_memory": 0.3}})
    monkeypatch.setattr(sys, "argv", ["train.py", "all"])
    train.main()
    assert json.loads(capsys.readouterr().out)["head_memory"] == 0.3


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("training.batch_size=8", "give --batch"),
        ("training.device=cuda", "give --device"),
        ("training.minutes=1", "give --minutes"),
        ("training.workers=2", "ddp_efficiency compares one with two"),
        ("training.seed=3", "--repeats"),
        ("training.validations=4", "does not validate"),
        ("model.size=base", "give --sizes"),
        ("data.seq_len=64", "give --seq-len"),
        ("encoder.dim=8", "only model and training are read"),
    ],
)
def test_settings_that_would_be_overruled_are_refused_with_what_to_give(override, fix, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "utilisation", "--set", override])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    assert re.fullmatch(rf"error: --set {override.partition('=')[0]} .*{re.escape(fix)}.*\n", capsys.readouterr().err)


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


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_speedup_is_the_least_of_its_cases_with_the_configs_optimizer():
    result = run("speedup_vs_reference_loop", *QUICK, "--vocabularies", 500, 2000)
    assert result["optimizer"] == training_settings([]).optimizer
    assert [case["vocabulary"] for case in result["cases"]] == [500, 2000]
    for case in result["cases"]:
        for optimizer in ("muon", "adamw"):
            ratio = case[f"{optimizer}_samples_per_second"] / case["reference_samples_per_second"]
            assert case[f"speedup_{optimizer}"] == pytest.approx(ratio, rel=0.05)
        assert case["reference_precision"] == "float32"
        assert case["reference_parameters"] != case["muon_parameters"] == case["adamw_parameters"] > 0
    chosen = [case[f"speedup_{result['optimizer']}"] for case in result["cases"]]
    assert result["speedup_vs_reference_loop"] == min(chosen)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_utilisation_is_a_share_of_a_plain_product():
    result = run("utilisation", *QUICK)
    figures = result["sizes"]["tiny"]
    assert result["utilisation"] == figures["utilisation"]
    assert 0 < figures["utilisation"] < 1
    assert "product in" in figures["plain_product"]
    achieved = figures["samples_per_second"] * figures["gigaflops_a_text"] / 1e3
    assert figures["teraflops_per_second"] == pytest.approx(achieved, rel=0.1)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_fused_head_takes_less_memory_than_a_dense_one():
    result = run("head_memory", "--positions", 1536)
    assert result["vocabulary"] == 152_000
    assert result["head_memory"] == max(result["ratios"].values())
    assert result["ratios"]["float32"] < 0.35  # measured: 0.23
    assert result["ratios"]["bfloat16-mixed"] < 0.65  # measured: 0.54
    assert result["threads"] == os.cpu_count()
    dense = result["peak_mb"]["float32"]["dense"]
    assert dense > 2 * 4 * 1536 * 152_000 / 1e6  # the logits and one copy of them at least


@pytest.mark.benchmark
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
    assert (result["minutes"], result["real_text"], result["threads"]) == (0.1, None, 1)


@pytest.mark.benchmark
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers of one thread need two cores")
def test_workers_are_compared_with_the_bare_loop():
    result = run("ddp_efficiency", *QUICK)
    one, two = result["one_worker_samples_per_second"], result["two_workers_samples_per_second"]
    assert result["ddp_efficiency"] == pytest.approx(two / (2 * one), rel=0.05)
    assert (result["threads"], result["device"]) == (1, "cpu")
    bare, two_bare = result["bare_samples_per_second"], result["two_bare_samples_per_second"]
    assert result["ray_overhead"] == pytest.approx(one / bare, rel=0.05)
    assert result["side_by_side"] == pytest.approx(two_bare / (2 * bare), rel=0.05)


@pytest.mark.benchmark
def test_mistakes_are_told_in_a_sentence(tmp_path):
    assert mistake("quality_at_equal_time", "--data", tmp_path).startswith("error: ")
    assert "unknown key training.rate" in mistake("utilisation", "--set", "training.rate=1")
    assert "lower --positions" in mistake("head_memory", "--positions", 10**7)
