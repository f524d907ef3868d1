"""benchmarks/gpu_train.py goes from texts to a checkpoint without Ray and DeepSpeed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_train import command_line, configured, run_all
from embinv.data.pairs import read_pairs
from embinv.data.records import generate_records
from embinv.inverter import load_inverter

ROOT = Path(__file__).resolve().parents[2]


def arguments(*given):
    return command_line().parse_args([*map(str, given), "--device", "cpu"])


def test_flags_and_overrides_become_settings(tmp_path):
    config = configured(arguments("--out", tmp_path, "--size", "tiny", "--minutes", "2", "--seq-len", "16"))
    assert (config.model.size, config.data.seq_len) == ("tiny", 16)
    assert (config.training.minutes, config.training.batch_size, config.training.device) == (2.0, 64, "cpu")
    config = configured(arguments("--out", tmp_path, "--batch", 8, "--set", "training.optimizer=adamw"))
    assert (config.model.size, config.training.batch_size, config.training.optimizer) == ("base", 8, "adamw")


def test_mistakes_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="name texts to make them of: --texts FILE"):
        run_all(arguments("--out", tmp_path / "out"))
    with pytest.raises(ValueError, match="no such file"):
        run_all(arguments("--out", tmp_path / "out", "--texts", tmp_path / "none.parquet"))
    assert not (tmp_path / "out" / "checkpoint").exists()


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


@pytest.mark.slow
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
    assert first["peak_memory_gib"] > 0
    assert first["seconds"] >= 6.0
    assert first["evaluation"]["n"] == 10
    assert set(first["evaluation"]["baselines"]) == {"zero", "shuffled", "nearest"}
    assert len(json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["examples"]) == 10

    inverter = load_inverter(first["checkpoint"])
    assert inverter.config.training["steps"] == first["kept_step"]
    test = read_pairs(out / "pairs", "test")
    assert len(inverter.invert(test.embeddings[:2].astype(np.float32))) == 2

    again = run(blocked, "--data", out / "pairs", "--out", tmp_path / "again", *usual)
    assert again["encode_texts_per_second"] is None
    assert again["training_texts"] == first["training_texts"]
