"""`python -m serve_app.deploy` on a cluster of its own: again and again, interrupted, and with the shipped config."""

import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serve_app.programs import ANSWER_S, PROJECT_ROOT, READY_S, environment_for, head_node, poll, running
from tests.serve_app.small_app import config_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The dashboard's address, the environment to ask it from, and a free port for Serve."""
    folder = Path(tempfile.mkdtemp(prefix="deploy", dir="/tmp"))  # short, since it holds Unix sockets
    environment = environment_for(folder)
    log = tmp_path_factory.mktemp("cluster") / "ray.log"
    try:
        with head_node(environment, folder, log) as (address, _, port):
            yield address, environment, port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def deployed(cluster, file, *options):
    address, environment, _ = cluster
    command = [sys.executable, "-m", "serve_app.deploy", str(file), "--address", address, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=READY_S)


def answer_of(port):
    return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=ANSWER_S).text


def test_a_cluster_is_deployed_to_again_and_again(cluster, tmp_path):
    port = cluster[2]

    first = deployed(cluster, config_of(tmp_path, {"text": "one"}, port))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith("deployed: small\n") and "small: RUNNING (Small 1/1)" in first.stdout
    assert answer_of(port) == "one"

    # It returns no sooner than the new one answers, although the old one runs all the while.
    second = deployed(cluster, config_of(tmp_path, {"text": "two", "starts_in_s": 3.0}, port))
    assert second.returncode == 0 and "DEPLOYING" in second.stdout
    assert {answer_of(port) for _ in range(5)} == {"two"}

    same = deployed(cluster, config_of(tmp_path, {"text": "two", "starts_in_s": 3.0}, port))
    assert same.returncode == 0 and "its replicas were kept" in same.stdout

    other_port = deployed(cluster, config_of(tmp_path, {"text": "three"}, port + 1))
    assert other_port.returncode == 2 and f"http_options.port: {port + 1}, but" in other_port.stderr
    assert answer_of(port) == "two"

    for fault in ({"build_error": "no folder here"}, {"start_error": "no folder here"}):
        failed = deployed(cluster, config_of(tmp_path, {"text": "four"} | fault, port))
        assert failed.returncode == 1, failed
        assert "no folder here" in failed.stderr and "Traceback" not in failed.stderr and "File " not in failed.stderr

    slow = deployed(cluster, config_of(tmp_path, {"text": "five", "starts_in_s": 60.0}, port), "--timeout", "3")
    assert slow.returncode == 1 and "time is up, and not RUNNING: small" in slow.stderr

    mended = deployed(cluster, config_of(tmp_path, {"text": "six"}, port, name="renamed"))
    assert mended.returncode == 0 and "small: will be removed" in mended.stdout
    assert answer_of(port) == "six"


def test_an_interrupted_command_leaves_the_deployment_going(cluster, tmp_path):
    address, environment, port = cluster
    file = config_of(tmp_path, {"text": "seven", "starts_in_s": 6.0}, port)
    log = tmp_path / "deploy.log"
    command = [sys.executable, "-m", "serve_app.deploy", str(file), "--address", address]
    with running(command, environment, log) as process:
        poll(lambda: "DEPLOYING" in log.read_text(), process, log)
        process.send_signal(signal.SIGINT)
        assert process.wait(ANSWER_S) == 130
    assert "the deployment goes on" in log.read_text() and "Traceback" not in log.read_text()
    deadline = time.monotonic() + READY_S
    seen = (answer_of(port) for _ in itertools.count() if time.monotonic() < deadline and not time.sleep(0.5))
    assert next(text for text in seen if text == "seven")


def metrics_of(target):
    """What Prometheus would read there; not everything that Ray names listens on a small cluster."""
    try:
        return httpx.get(f"http://{target}/metrics", trust_env=False, timeout=ANSWER_S).text
    except httpx.TransportError:
        return None


SHIPPED = PROJECT_ROOT / "serve_app" / "config.yaml"
COUNTED = {  # after one inversion; rejections and retries are made known when there is one
    "ray_embinv_requests_total",
    "ray_embinv_request_seconds_bucket",
    "ray_embinv_vectors_total",
    "ray_embinv_queued_vectors",
    "ray_embinv_batch_size_sum",
    "ray_embinv_queue_seconds_count",
    "ray_embinv_model_seconds_bucket",
    "ray_serve_deployment_replica_healthy",
    "ray_serve_autoscaling_target_replicas",
}


def test_the_shipped_config_runs_and_is_measured_under_the_dashboards_names(
    cluster, tiny_checkpoint, vectors, tmp_path
):
    address, _, port = cluster
    tree = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    tree["http_options"]["port"] = port
    tree["applications"][1]["args"] |= {"checkpoint": str(tiny_checkpoint), "encode": False}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")

    done = deployed(cluster, file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gateway: RUNNING" in done.stdout and "minilm: RUNNING" in done.stdout
    url = f"http://127.0.0.1:{port}/invert/minilm"
    deadline = time.monotonic() + READY_S
    body = {"embedding": vectors[0].tolist()}
    while (response := httpx.post(url, json=body, trust_env=False, timeout=ANSWER_S)).status_code == 503:
        assert time.monotonic() < deadline, response.text  # the gateway looks who is there every few seconds
        time.sleep(0.5)
    assert response.status_code == 200, response.text

    def scraped():
        discovered = httpx.get(f"{address}/api/prometheus/sd", trust_env=False, timeout=ANSWER_S).json()
        targets = [target for group in discovered for target in group["targets"]]
        return "".join(filter(None, map(metrics_of, targets)))

    while missing := {name for name in COUNTED if f"\n{name}{{" not in (text := scraped())}:
        assert time.monotonic() < deadline, missing
        time.sleep(2)
    lines = [line for line in text.splitlines() if line.startswith("ray_embinv_model_seconds_bucket")]
    assert any('encoder="minilm"' in line and 'le="' in line and 'application="minilm"' in line for line in lines)
    (counted,) = [line for line in text.splitlines() if line.startswith("ray_embinv_vectors_total{")]
    assert 'encoder="minilm"' in counted and float(counted.rpartition(" ")[2]) == 1
