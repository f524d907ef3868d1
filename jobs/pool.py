"""How many workers of a pipeline hold a copy of a model, and what each of them reserves of Ray."""

import os
from dataclasses import dataclass

import ray

NODE_MODELS = 4  # copies of a model in the memory of a node without GPUs, unless the config asks for more
MODEL_CPUS = 0.01  # see model_pool


@dataclass(frozen=True)
class ModelPool:
    """The actors of a stage: how many, what each reserves of Ray, its CPU threads (None: torch's own choice)."""

    workers: int
    resources: dict[str, float]
    threads: int | None


def model_pool(
    device: str, parts: int, setting: str, wanted: int | None, threads: int | None = None, most: int = NODE_MODELS
) -> ModelPool:
    """The actors that a config asks for in an open Ray session, and what it leaves open.

    A model of one thread is never held up by a neighbour that Ray wakes on its core; one of two threads waits for
    the slower one at every step (docs/LOG.md). So there is one a core, up to `most` a node: each is a copy.

    On CPUs an actor reserves next to none, whatever it uses: when a node is lost, its actors start anew on what is
    left, and if they took all of it there, the tasks that feed them would wait for ever
    (tests/jobs/test_encode_faults.py). Not nothing: a head that is given no CPUs gets no model either. Of 2 CPUs,
    tasks and the checkpoint's filter need both.

    Args:
        device: cpu or cuda.
        parts: how many there are to work on; no more actors than that.
        setting: what says how many there are to be, for messages: `encoding.workers`, say.
        wanted: actors that the config asks for; None leaves it open.
        threads: of each, that the config asks for; None leaves it open.
        most: copies on a node without GPUs where that is open; 0 means one in all.

    Raises:
        ValueError: a machine of its own has fewer GPUs than actors were asked for; a cluster may yet grow.
    """
    parts = max(1, parts)
    if device == "cuda":
        gpus = int(ray.cluster_resources().get("GPU", 0))
        workers = min(parts, wanted or max(1, gpus))
        if gpus < workers and not os.environ.get("RAY_ADDRESS"):
            raise ValueError(
                f"{setting}: device cuda with {workers} worker(s), but this machine has {gpus} GPU(s); set it to no "
                "more than that, or the device to cpu"
            )
        if gpus < workers:
            print(f"waiting until the Ray cluster, which has {gpus} GPU(s), has grown to {workers}", flush=True)
        return ModelPool(workers, {"num_gpus": 1, "num_cpus": 0}, threads)
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = max(1, sum(nodes))
    workers = min(parts, wanted or max(1, sum(min(node, most) for node in nodes)))
    return ModelPool(
        workers,
        {"num_cpus": MODEL_CPUS if cores > 2 else 0},
        threads or max(1, min(cores // workers, max(nodes, default=1))),
    )
