"""`serve run` and `serve deploy` with the shipped config.yaml, its checkpoint and port replaced by the test's own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from serve_app.app import PROJECT_ROOT
from tests.ports import free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

BIN = Path(sys.executable).parent
READY_S = 120


@pytest.fixture(scope="module")
def ray_folder():
    """Ray's own folder: so that no cluster of somebody else is found. Short, since it holds Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="serve", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def environment(ray_folder):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {
        "PATH": f"{BIN}:{kept['PATH']}",
        "PYTHONPATH": str(PROJECT_ROOT),  # as an installed embinv would be on every node
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(ray_folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def config_for(checkpoint, folder, port):
    tree = yaml.safe_load((PROJECT_ROOT / "serve_app" / "config.yaml").read_text(encoding="utf-8"))
    tree["applications"][0]["args"]["checkpoint"] = str(checkpoint)
    tree["http_options"]["port"] = port
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path, f"http://127.0.0.1:{port}/invert/minilm"


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


def answer(url, vector):
    try:
        response = httpx.post(url, json={"embedding": vector.tolist()}, trust_env=False, timeout=30)
    except httpx.TransportError:
        return None
    return response if response.status_code == 200 else None


def assert_inverted(response, url):
    (result,) = response.json()["results"]
    assert result["text"] and 0 < result["confidence"] <= 1
    refused = httpx.post(url, content=b"", trust_env=False)
    assert refused.status_code == 422 and "send" in refused.json()["detail"]


def test_serve_run_answers(tiny_checkpoint, vectors, environment, tmp_path):
    config, url = config_for(tiny_checkpoint, tmp_path, *free_ports(1))
    log = tmp_path / "serve.log"
    own_ray = environment | {"RAY_ADDRESS": "local"}
    with running([BIN / "serve", "run", config], own_ray, log) as process:
        response = poll(lambda: answer(url, vectors[0]), process, log)
        assert_inverted(response, url)
    assert answer(url, vectors[0]) is None


@pytest.fixture(scope="module")
def cluster(environment, ray_folder, tmp_path_factory):
    """A head node of our own: the address of its dashboard, its process and log, a free port for Serve."""
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
    log = tmp_path_factory.mktemp("cluster") / "ray.log"
    address = f"http://127.0.0.1:{dashboard}"

    def dashboard_answers():
        try:
            return httpx.get(f"{address}/api/version", trust_env=False).is_success
        except httpx.TransportError:
            return False

    command = [BIN / "ray", "start", "--head", "--block", *flags]
    with running(command, environment, log, stop=signal.SIGTERM) as process:
        poll(dashboard_answers, process, log)
        yield address, process, log, http


def serve(command, address, environment, *arguments):
    return subprocess.run(
        [BIN / "serve", command, "--address", address, *arguments],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def application(address):
    response = httpx.get(f"{address}/api/serve/applications/", trust_env=False, timeout=30)
    return response.json()["applications"].get("minilm", {}) if response.is_success else {}


def test_serve_deploy_answers_once_running(cluster, tiny_checkpoint, vectors, environment, tmp_path):
    address, process, log, port = cluster
    config, url = config_for(tiny_checkpoint, tmp_path, port)
    serve("deploy", address, environment, str(config))
    poll(lambda: application(address).get("status") == "RUNNING", process, log)
    assert "RUNNING" in serve("status", address, environment)
    assert_inverted(poll(lambda: answer(url, vectors[0]), process, log), url)


def test_a_deploy_without_its_checkpoint_fails_with_the_path_that_was_tried(cluster, environment, tmp_path):
    address, process, log, port = cluster
    config, _ = config_for(tmp_path / "none", tmp_path, port)
    serve("deploy", address, environment, str(config))  # exits 0, as Serve does
    poll(lambda: application(address).get("status") == "DEPLOY_FAILED", process, log)
    message = application(address)["message"]
    assert str(tmp_path / "none") in message and "make demo" in message
