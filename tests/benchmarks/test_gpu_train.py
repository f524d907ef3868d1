"""benchmarks/gpu_train.py goes from texts to a checkpoint without Ray and DeepSpeed, and always leaves a result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks import gpu_train
from benchmarks.gpu_train import RESULT, command_line, configured, run_all
from benchmarks.pairs import write_pairs
from embinv.data.pairs import read_pairs
from embinv.data.records import generate_records
from embinv.inverter import load_inverter
from jobs.batch_size import ON_A_CPU
from tests.fakes import sentences, word_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def arguments(*given):
    return command_line().parse_args([*map(str, given), "--device", "cpu"])


def test_flags_and_overrides_become_settings(tmp_path):
    config = configured(arguments("--out", tmp_path, "--size", "tiny", "--minutes", "2", "--seq-len", "16"))
    assert (config.model.size, config.data.seq_len) == ("tiny", 16)
    assert (config.training.minutes, config.training.batch_size, config.training.device) == (2.0, None, "cpu")
    config = configured(arguments("--out", tmp_path, "--batch", 8, "--set", "training.optimizer=adamw"))
    assert (config.model.size, config.training.batch_size, config.training.optimizer) == ("base", 8, "adamw")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.precision=bfloat16"], "training.precision bfloat16: .* set bfloat16-mixed or float32"),
        (["training.zero_stage=2"], "training.zero_stage 2: .* leave it at 0"),
        (["training.zero_stage=3", "training.offload_parameters=cpu"], "training.zero_stage 3"),
        (["training.workers=2", "training.batch_size=8"], "training.workers 2: .* leave it at 1"),
        (["training.minutes=null"], "give --minutes"),
    ],
)
def test_settings_that_it_cannot_honour_are_refused(tmp_path, settings, message):
    given = [part for setting in ["training.optimizer=adamw", *settings] for part in ("--set", setting)]
    with pytest.raises(ValueError, match=message):
        configured(arguments("--out", tmp_path, *given))


def test_mistakes_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="name texts to make them of: --texts FILE"):
        run_all(arguments("--out", tmp_path / "out"))
    with pytest.raises(ValueError, match="no such file"):
        run_all(arguments("--out", tmp_path / "out", "--texts", tmp_path / "none.parquet"))
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.fixture
def usual(tmp_path):
    """The flags of a run of a second: a tiny model, a hash encoder, words for tokens."""
    tokenizer = word_tokenizer(tmp_path / "words")
    tree = {
        "name": "hashed",
        "encoder": {"kind": "hash", "model": "hash", "dim": 16},
        "data": {"tokenizer": tokenizer.source, "seq_len": 8, "min_chars": 5, "min_tokens": 2, "validation": 0.2},
        "training": {"validation_rows": 8, "validations": 2, "threads": 1, "precision": "float32"},
        "evaluation": {"rows": 8},
    }
    (tmp_path / "hashed.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (tmp_path / "texts.txt").write_text("\n".join(sentences(400)), encoding="utf-8")
    threads = torch.get_num_threads()
    yield [
        *("--encoder-config", tmp_path / "hashed.yaml", "--texts", tmp_path / "texts.txt", "--out", tmp_path / "out"),
        *("--size", "tiny", "--minutes", 0.02, "--set", "data.test=0.2"),
    ]
    torch.set_num_threads(threads)


def kept_result(tmp_path):
    return json.loads((tmp_path / "out" / RESULT).read_text(encoding="utf-8"))


def test_the_result_is_kept_beside_the_checkpoint(tmp_path, usual):
    result = run_all(arguments(*usual, "--batch", 16))
    assert result == kept_result(tmp_path)
    assert (result["error"], result["evaluation"]["n"], result["batch"]) == (None, 8, 16)
    assert result["peak_memory_gib"] is None  # resident memory would be that of encoding, too
    assert Path(result["checkpoint"]).is_dir()
    assert result["kept_step"] <= result["steps"]
    with pytest.raises(ValueError, match="made with rows None, not 100"):
        run_all(arguments(*usual, "--rows", 100))


def test_a_batch_that_is_left_open_is_found(usual):
    result = run_all(arguments(*usual, "--set", "training.batch_size=null"))
    assert result["batch"] in (1, 2, 4, 8, 16, ON_A_CPU)  # of few rows, a hundredth
    assert result["samples"] == result["steps"] * result["batch"]


def test_an_evaluation_that_fails_leaves_the_figures_of_training(tmp_path, usual, monkeypatch):
    def fail(*arguments, **more):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(gpu_train, "evaluate", fail)
    monkeypatch.setattr(sys, "argv", ["gpu_train.py", *map(str, usual), "--device", "cpu", "--batch", "16"])
    with pytest.raises(SystemExit) as stop:
        gpu_train.main()
    assert stop.value.code == 1
    result = kept_result(tmp_path)
    assert (result["evaluation"], result["error"]) == (None, "evaluation: RuntimeError: no memory left")
    assert result["steps"] > 0
    assert result["kept_step"] > 0


def test_the_line_is_printed_whatever_becomes_of_the_evaluation(tmp_path, usual, monkeypatch, capsys):
    monkeypatch.setattr(gpu_train, "measure", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["gpu_train.py", *map(str, usual), "--device", "cpu", "--batch", "16"])
    with pytest.raises(SystemExit):
        gpu_train.main()
    assert json.loads(capsys.readouterr().out) == kept_result(tmp_path)


def test_a_loss_that_is_not_finite_ends_training_with_a_result(tmp_path, usual):
    broken = ["training.learning_rate=1e30", "training.warmup=0", "training.optimizer=adamw", "training.max_skipped=2"]
    given = [part for setting in broken for part in ("--set", setting)]
    result = run_all(arguments(*usual, "--batch", 16, "--minutes", 5, *given))
    assert "no finite loss or gradient in 2 steps" in result["error"]
    assert (result["evaluation"], result["checkpoint"], result["kept_step"]) == (None, None, None)
    assert result["steps"] >= 2
    assert result == kept_result(tmp_path)


def test_memory_that_does_not_hold_a_step_is_told_with_the_flag(usual, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_train, "run", full)
    with pytest.raises(ValueError, match=r"does not hold a step of 16 texts; lower --batch"):
        run_all(arguments(*usual, "--batch", 16))


def test_a_split_that_is_missing_is_told_before_training(tmp_path, usual, monkeypatch):
    run_all(arguments(*usual, "--batch", 16))
    for split, rows, message in (("test", 1, "a figure needs two"), ("validation", 0, "split=validation")):
        pairs = {name: read_pairs(tmp_path / "out" / "pairs", name) for name in ("train", "validation", "test")}
        pairs[split] = pairs[split].take(np.arange(rows))
        recipe = load_inverter(tmp_path / "out" / "checkpoint").config.pairs
        write_pairs(tmp_path / split, recipe, pairs)
        given = [part for part in usual if part not in ("--texts", tmp_path / "texts.txt")]
        monkeypatch.setattr(gpu_train, "train", lambda *_: pytest.fail("it trained"))
        with pytest.raises(ValueError, match=message):
            run_all(arguments(*given, "--data", tmp_path / split, "--batch", 16))


def test_an_encoder_that_cannot_be_opened_is_told_before_training(usual, monkeypatch):
    run_all(arguments(*usual, "--batch", 16))

    def absent(*arguments):
        raise ValueError("no such model")

    monkeypatch.setattr(gpu_train, "open_encoder", absent)
    monkeypatch.setattr(gpu_train, "train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(ValueError, match="no such model"):
        run_all(arguments(*usual, "--batch", 16))


def run(blocked, *given):
    """The script's one JSON object, from a process in which neither Ray nor DeepSpeed can be imported."""
    command = [sys.executable, "benchmarks/gpu_train.py", "--device", "cpu", "--size", "tiny", *map(str, given)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_texts_become_a_checkpoint_that_inverts_and_is_measured(tmp_path):
    blocked = tmp_path / "blocked"
    for name in ("ray", "deepspeed"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not installed')", encoding="utf-8")
    texts, out = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("\n".join(record.text for record in generate_records("en", 0, 0)), encoding="utf-8")
    usual = ["--seq-len", 16, "--minutes", 0.1, "--batch", 16, "--set", "evaluation.rows=10"]
    usual += ["--set", "training.validation_rows=8", "--set", "data.test=0.1", "--set", "data.validation=0.1"]
    first = run(blocked, "--texts", texts, "--rows", 300, "--out", out, *usual)
    assert (first["benchmark"], first["size"], first["batch"], first["seq_len"]) == ("gpu_train", "tiny", 16, 16)
    assert first["encode_texts_per_second"] > 0
    assert first["tokens_per_second"] == pytest.approx(16 * first["samples_per_second"], rel=0.01)
    assert 0 < first["mfu"] < 1
    assert first == json.loads((out / RESULT).read_text(encoding="utf-8"))
    assert first["seconds"] >= 6.0
    assert first["evaluation"]["n"] == 10
    assert set(first["evaluation"]["baselines"]) == {"zero", "shuffled", "nearest", "unconditional"}
    assert len(json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["examples"]) == 10

    inverter = load_inverter(first["checkpoint"])
    assert inverter.config.training["steps"] == first["kept_step"]
    test = read_pairs(out / "pairs", "test")
    assert len(inverter.invert(test.embeddings[:2].astype(np.float32))) == 2

    again = run(blocked, "--data", out / "pairs", "--out", tmp_path / "again", *usual)
    assert again["encode_texts_per_second"] is None
    assert again["training_texts"] == first["training_texts"]
