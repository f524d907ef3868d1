"""The Ray cluster that a job runs on: the one it was sent to, or one of its own on this machine."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions

from embinv.encoders.trust import TRUSTED
from jobs.shared_storage import require_seen_by_all

# Ray ends workers that are idle for a second when there are more of them than CPUs. Ours import libraries for seconds,
# and on a small machine each stage of a pipeline would start them again and again.
WORKERS_STAY = {"idle_worker_killing_time_threshold_ms": 120_000, "num_workers_soft_limit": 16}


@contextmanager
def ray_session(*outs: Path, inputs: Sequence[Path | None] = ()) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS (set by `ray job submit`), or starts one and ends it afterwards.

    A session that is open already, as in the demo, is used and left open. A cluster of our own asks for a token
    unless RAY_AUTH_MODE says otherwise: Ray reads that when it is imported, so it is set outside.

    Args:
        outs: folders that workers will write to.
        inputs: files and folders that they will read; None is left out.

    Raises:
        ValueError: the cluster cannot be reached, or one of its nodes does not see one of the folders.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told once, by jobs/failures.py
    if ray.is_initialized():
        yield
        return
    ray.data.DataContext.get_current().enable_progress_bars = False  # the jobs show their own progress
    # Workers tell the driver what matters through jobs/follow.py.
    # Never a cluster that merely happens to run on this machine: it may be somebody's service, with another token.
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        # Nobody has the address of the dashboard of a cluster that ends with its job; of two cores it takes a 25th.
        if address == "local":
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own notes about its actors
        own: dict[str, Any] = {"_system_config": WORKERS_STAY, "include_dashboard": False} if address == "local" else {}
        if trusted := os.environ.get(TRUSTED):  # said to the driver, and meant for its workers too
            own["runtime_env"] = {"env_vars": {TRUSTED: trusted}}
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise ValueError(
            f"the Ray cluster {address!r} cannot be reached or started ({str(error).splitlines()[0]}); check "
            "RAY_ADDRESS, and RAY_AUTH_MODE with its token (RAY_AUTH_TOKEN_PATH), or unset it to start one here"
        ) from error
    try:
        require_seen_by_all(outs, [path for path in inputs if path is not None])
        yield
    finally:
        ray.shutdown()
