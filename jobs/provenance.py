"""What a job leaves about itself in its output, and the cluster that it ran on; the file is embinv/provenance/'s."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embinv.provenance.sittings import PROVENANCE_FILE, begin_sitting, end_sitting


def keep_provenance(out: Path, job: str, settings: Mapping[str, Any]) -> None:
    """Notes in an output folder that a job begins there, with what settings and on what."""
    begin_sitting(out / PROVENANCE_FILE, _named(job), settings, cluster())


def end_provenance(out: Path, job: str) -> None:
    """Notes that it came to its end."""
    end_sitting(out / PROVENANCE_FILE, _named(job))


def cluster() -> dict[str, Any] | None:
    """Hosts that are alive, and what they have together; None while no Ray session is open."""
    import ray  # here, since settings of jobs are read in processes that load no Ray

    if not ray.is_initialized():
        return None
    hosts = [node for node in ray.nodes() if node.get("Alive")]
    have = ray.cluster_resources()
    accelerators = sorted(name.partition(":")[2] for name in have if name.startswith("accelerator_type:"))
    return {
        "hosts": len(hosts),
        "cpus": have.get("CPU", 0.0),
        "gpus": have.get("GPU", 0.0),
        "accelerators": accelerators,
    }


def _named(job: str) -> str:
    return f"jobs/{job}.py"
