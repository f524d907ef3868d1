"""The machines and the facts of Ray that `embinv.planning.limits` holds the jobs against, each with its source.

None of them was measured on a cluster: there was none. What was measured is on one machine (docs/LOG.md), and says so.
"""

from dataclasses import dataclass

TASKS_PER_SECOND = 569
"""Tasks that a cluster of 64 nodes ran a second, scheduled over all of them: ray-project/ray, release/perf_metrics/
benchmarks/many_tasks.json at commit 0652555. One caller that only submits: 8,041 (microbenchmark.json, 08444c4)."""

REF_BYTES = 3000
"""Of the owner's memory for an object reference: CALLER_MEMORY_USAGE_PER_OBJECT_REF, ray/_private/ray_constants.py."""

STORE_SHARE, STORE_MOST = 0.3, 200e9
"""Of a node's memory for the object store: DEFAULT_OBJECT_STORE_MEMORY_PROPORTION and _MAX_MEMORY_BYTES, same file."""

ARGUMENTS = 10_000
"""Objects that one task was given in Ray's release tests: scalability/single_node.json, `10000_args_time` 17 s."""

S3_PUTS, S3_GETS = 3500, 5500
"""Requests a second and prefix: Amazon S3, "Request Rate and Performance Guidelines"."""

GATEWAY_SECONDS = 0.0081
"""From a client to the gateway, 2.3 ms, and from there to an encoder and back, 5.8 ms: docs/LOG.md, 2026-11-22, with
HAProxy and cluster/serve.env, one request after another. All of it is taken for work of the gateway's one process, the
worst case."""

REPLICA_RATE = 6.9
"""Inversions a second of one replica: base, 2 cores, 32 clients, docs/LOG.md 2026-11-22."""


@dataclass(frozen=True)
class Node:
    """A machine with GPUs, and the one that drives the jobs.

    Attributes:
        name: what is meant.
        gpus: in it.
        memory_bytes: of it.
        disk_bytes: of its own.
        driver_bytes: memory of the machine that the job's own process runs on.
    """

    name: str
    gpus: int
    memory_bytes: float
    disk_bytes: float
    driver_bytes: float

    @property
    def store_bytes(self) -> float:
        """Of Ray's object store, by default."""
        return min(STORE_SHARE * self.memory_bytes, STORE_MOST)


P4D = Node(
    "p4d.24xlarge (8 x A100 40 GB, 1,152 GiB, 8 TB NVMe), driven from a machine of 128 GB", 8, 1.237e12, 8e12, 128e9
)
"""AWS, "Amazon EC2 P4d instances deep dive"."""
