"""Real programs that tests start: a command in a session of its own, and a Ray head node with its dashboard."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.ports import free_ports
from benchmarks.processes import own_ray_environment

PROJECT_ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
READY_S = 300
ANSWER_S = 60  # of one request; a busy machine may take its time


def environment_for(ray_folder):
    """What a program gets: a Ray of its own in `ray_folder`, and this checkout as if it were installed."""
    return own_ray_environment(ray_folder) | {
        "PYTHONPATH": str(PROJECT_ROOT),  # as an installed embinv would be on every node
    }


@contextmanager
def running(command, environment, log, stop=signal.SIGINT):
    """A program in a session of its own, which alone is ended afterwards."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def poll(attempt, process, log):
    """Repeats `attempt` until it gives something."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := attempt():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not ready:\n{log.read_text()[-4000:]}")


@contextmanager
def head_node(environment, ray_folder, log):
    """A head node of our own: the address of its dashboard, its process, a free port for Serve."""
    port, dashboard, agent, client, http = free_ports(5)
    options = {
        "port": port,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "node-ip-address": "127.0.0.1",
        "num-cpus": 2,
        "object-store-memory": 100_000_000,
        "temp-dir": ray_folder,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    address = f"http://127.0.0.1:{dashboard}"

    def is_up():
        if "Ray runtime started" not in log.read_text():  # the dashboard may answer of a node that then fails
            return False
        try:
            return httpx.get(f"{address}/api/version", trust_env=False, timeout=ANSWER_S).is_success
        except httpx.TransportError:
            return False

    command = [BIN / "ray", "start", "--head", "--block", *flags]
    with running(command, environment, log, stop=signal.SIGTERM) as process:
        poll(is_up, process, log)
        yield address, process, http
