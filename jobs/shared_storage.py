"""Whether every node of a cluster sees the folders of a job: a path that leads elsewhere on each node loses rows.

Nodes that join later cannot be asked.
"""

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.staging import WORK, shown

ANSWER_S = 60.0  # for all nodes together; the first worker process of a node takes seconds


def require_seen_by_all(outs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Asks every node but this one for the folders of a job, in an open Ray session.

    Args:
        outs: folders to be written, which need not be there.
        inputs: files and folders to be read.

    Raises:
        ValueError: a node does not see one of them, or sees another folder of that name.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    others.pop(here, None)
    if not others or not (outs or inputs):
        return
    probes = {out: out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.seen") for out in outs}
    try:
        for out, probe in probes.items():
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                probe.touch()
            except OSError as error:
                raise ValueError(
                    f"--out {shown(out)}: cannot be written ({error.strerror}); check the disk and its permissions"
                ) from error
        wanted = {str(probe): contents(str(probe)) for probe in probes.values()}
        wanted |= {str(path): contents(str(path)) for path in inputs}
        asked = {
            _look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(list(wanted)): at
            for node, at in others.items()
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for reference in silent:
            print(f"node {asked[reference]} did not say in {ANSWER_S:.0f} s whether it sees the folders", flush=True)
            ray.cancel(reference, force=True)
        names = {str(probe): f"--out {shown(out)}" for out, probe in probes.items()}
        for reference in answered:
            try:
                found = ray.get(reference)
            except ray.exceptions.RayError:
                continue  # the node left meanwhile, which is the job's matter
            _require_equal(wanted, found, names, asked[reference])
    finally:
        for probe in probes.values():
            probe.unlink(missing_ok=True)


def contents(path: str) -> str | None:
    """Names what is at a path by its size or by the names in it; None if there is nothing."""
    try:
        if os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
            return hashlib.sha256("\n".join(names).encode()).hexdigest()
        return f"{os.path.getsize(path)} bytes"
    except OSError:
        return None


@ray.remote(num_cpus=0, max_retries=0)
def _look(paths: list[str]) -> dict[str, str | None]:
    return {path: contents(path) for path in paths}


def _require_equal(
    wanted: dict[str, str | None], found: dict[str, str | None], names: dict[str, str], node: str
) -> None:
    for path, what in wanted.items():
        if found[path] != what:
            named = names.get(path, shown(Path(path)))
            missing = "is not there" if found[path] is None or path in names else "is another one"
            raise ValueError(
                f"{named}: {missing} on the node {node}; give a path on storage that all nodes of the cluster share "
                f"(for s3:// and gs://, set {WORK} to a folder there)"
            )
