"""What every test shares: a process with one thread of arithmetic, and one Ray cluster for those that ask for it."""

import logging
import os
import signal

import pytest
import torch

os.environ["RAY_AUTH_MODE"] = "disabled"  # before ray is imported: a token would be written into the home directory
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_raylet_start_wait_time_s"] = "180"  # noqa: SIM112 - a node whose cores are taken starts slowly
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # the hub's client would ask it about itself, and write in the home
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background, as what tests start would be then
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums come out the same on every machine, and Ray's workers find a free core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster of 4 CPUs in this process; Serve does not run on it, and must not when a test ends."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
