"""How many workers of a pipeline hold a copy of a model, and what each of them reserves of Ray."""

import os
from dataclasses import dataclass
from typing import Any

import ray

NODE_MODELS = 4  # copies of a model in the memory of a node without GPUs, unless the config asks for more
MODEL_CPUS = 0.01  # see model_pool


@dataclass(frozen=True)
class ModelPool:
    """The actors of a stage: how many, what each reserves of Ray, its CPU threads (None: torch's own choice)."""

    workers: int
    resources: dict[str, Any]
    threads: int | None


def nodes_with(accelerator: str | None) -> list[dict[str, float]]:
    """The resources of each node that is alive, of those with this kind of GPU if one is named."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [node for node in nodes if accelerator is None or f"accelerator_type:{accelerator}" in node]


def model_pool(
    device: str,
    parts: int,
    setting: str,
    wanted: int | None,
    threads: int | None = None,
    most: int = NODE_MODELS,
    accelerator: str | None = None,
) -> ModelPool:
    """The actors that a config asks for in an open Ray session, and what it leaves open.

    A model of one thread is never held up by a neighbour that Ray wakes on its core; one of two threads waits for
    the slower one at every step (docs/LOG.md). So there is one a core, up to `most` a node: each is a copy.

    On CPUs an actor reserves next to none, whatever it uses: when a node is lost, its actors start anew on what is
    left, and if they took all of it there, the tasks that feed them would wait for ever
    (tests/jobs/test_encode_faults.py). Not nothing: a head that is given no CPUs gets no model either, and where it is
    alone yet, the cluster grows. Of 2 CPUs, tasks and the checkpoint's filter need both.

    Args:
        device: cpu or cuda.
        parts: how many there are to work on; no more actors than that.
        setting: what says how many there are to be, for messages: `encoding.workers`, say.
        wanted: actors that the config asks for; None leaves it open.
        threads: of each, that the config asks for; None leaves it open.
        most: copies on a node without GPUs where that is open; 0 means one in all.
        accelerator: the kind of GPU, as Ray names it; None takes any.

    Raises:
        ValueError: a machine of its own has fewer GPUs than actors were asked for; a cluster may yet grow.
    """
    parts = max(1, parts)
    if device == "cuda":
        gpus = sum(int(node.get("GPU", 0)) for node in nodes_with(accelerator))
        workers = min(parts, wanted or max(1, gpus))
        what = "GPU(s)" if accelerator is None else f"GPU(s) of kind {accelerator}"
        if gpus < workers and not os.environ.get("RAY_ADDRESS"):
            raise ValueError(
                f"{setting}: device cuda with {workers} worker(s), but this machine has {gpus} {what}; set it to no "
                "more than that, or the device to cpu"
            )
        if gpus < workers:
            print(f"waiting until the Ray cluster, which has {gpus} {what}, has grown to {workers}", flush=True)
        kind = {} if accelerator is None else {"accelerator_type": accelerator}
        return ModelPool(workers, {"num_gpus": 1, "num_cpus": 0, **kind}, threads)
    nodes = [int(node.get("CPU", 0)) for node in nodes_with(None)]
    cores = sum(nodes)
    workers = min(parts, wanted or max(1, sum(min(node, most) for node in nodes)))
    return ModelPool(
        workers,
        {"num_cpus": 0 if 1 <= cores <= 2 else MODEL_CPUS},
        threads or max(1, min(cores // workers, max(nodes, default=1))),
    )
