"""jobs/hypotheses.py is killed and goes on: no row is lost, none stands twice, on 2 CPUs.

The traps of what does it are in the docstring of tests/jobs/test_encode_resume.py.
"""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from embinv.data.corrections import read_corrections
from embinv.data.pairs import read_pairs
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from jobs.exactly_once import progress_folder
from jobs.train_identity import train_texts
from tests.fakes import pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer, write_pairs

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

SPEC = EncoderSpec(kind="hash", model="hash", dim=16)
TRAIN, VALIDATION, WINDOWS, WINDOW = 20, 40, 16, 128
ROWS = VALIDATION + WINDOWS * WINDOW


def committed(out):
    """Rows whose ids Ray Data's checkpoint holds for good."""
    try:
        files = [file for file in (progress_folder(out) / "ids").glob("*.parquet") if ".pending" not in file.name]
        return sum(pq.read_metadata(file).num_rows for file in files)
    except (OSError, ValueError):
        return 0  # one is being renamed or written just now


def write_inputs(folder):
    """A checkpoint, and pairs with a file for each window."""
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    recipe, pairs = recipe_for(tokenizer, SPEC), pairs_of(sentences(TRAIN + ROWS), tokenizer, HashEncoder(SPEC))
    write_pairs(folder / "pairs", recipe, pairs.take(np.arange(TRAIN)))
    write_pairs(folder / "pairs", recipe, pairs.take(np.arange(TRAIN, TRAIN + VALIDATION)), "validation")
    for window in range(WINDOWS):
        start = TRAIN + VALIDATION + window * WINDOW
        rows = np.arange(start, start + WINDOW)
        write_pairs(folder / "pairs", recipe, pairs.take(rows), "correction", f"part-{window}.parquet")
    (folder / "pairs" / "_SUCCESS").touch()
    config = folder / "checkpoint" / "config.json"
    tree = json.loads(config.read_text()) | {"training": train_texts(pairs.ids[:TRAIN])}
    config.write_text(json.dumps(tree))


def test_a_killed_run_goes_on_with_no_row_lost_and_none_twice(start_job, tmp_path):
    write_inputs(tmp_path)
    data, out = tmp_path / "pairs", tmp_path / "hypotheses"
    command = ["jobs/hypotheses.py", "--checkpoint", tmp_path / "checkpoint", "--data", data, "--out", out]
    command += ["--strategy", "euler", "--steps", "150"]  # a part of a second a window, on an idle machine

    job = start_job(*command)
    job.until(lambda: committed(out) >= ROWS // 4)
    assert job.kill() > 3  # driver, raylet, GCS and at least one worker
    assert job.members() == []
    assert not (out / "_SUCCESS").exists()
    before = committed(out)
    assert ROWS // 4 <= before < ROWS

    code, output = start_job(*command).finish()
    assert code == 0, output
    assert f"going on: {before:,} of {ROWS:,} texts are inverted" in output and "Traceback" not in output
    assert "next: python jobs/train.py" in output

    files = sorted(out.rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == ROWS
    for split, source in (("train", "correction"), ("validation", "validation")):
        found, pairs = read_corrections(out, split), read_pairs(data, source)
        assert found.pairs.ids.tolist() == pairs.ids.tolist()  # none lost, none twice
        assert found.pairs.texts == pairs.texts
        vectors = HashEncoder(SPEC).encode([text or " " for text in found.hypotheses]).astype(np.float16)
        np.testing.assert_array_equal(found.hypothesis_embeddings, vectors)
    stats = json.loads((out / "_stats.json").read_text())
    assert stats["splits"] == {"train": WINDOWS * WINDOW, "validation": VALIDATION}
    assert not progress_folder(out).exists()

    code, output = start_job(*command).finish()
    assert code == 0 and f"all done before, {ROWS:,} hypotheses" in output, output
    assert sorted(out.rglob("*.parquet")) == files
