"""A bad checkpoint is deployed over a good one, and taken back: what docs/RUNBOOK.md says is seen on a cluster."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serve_app.programs import PROJECT_ROOT, environment_for, head_node

# test_deploy_cluster.py sees failed deployments in CI; this is the whole story of the runbook, checkpoints and all.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


class Service:
    """The shipped config on a cluster of its own, with one checkpoint after the other."""

    def __init__(self, address, environment, port, folder, vector):
        self.address, self.environment, self.port = address, environment, port
        self.folder, self.vector = folder, vector

    def deploy(self, checkpoint):
        """Deploys as the runbook does: a folder of its own for each checkpoint, named in the config."""
        tree = yaml.safe_load((PROJECT_ROOT / "serve_app" / "config.yaml").read_text(encoding="utf-8"))
        tree["http_options"]["port"] = self.port
        tree["applications"][1]["args"] |= {"checkpoint": str(checkpoint), "encode": False, "max_batch_size": 4}
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        command = [sys.executable, "-m", "serve_app.deploy", str(file), "--address", self.address, "--timeout", "300"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=400)

    def ask(self):
        """Status and body of an answer; waits while the gateway looks who is there."""
        deadline = time.monotonic() + 60
        while True:
            status, answer = self.ask_once()
            if status not in (503, 404) or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.5)

    def ask_once(self):
        """Status and body of one answer."""
        url = f"http://127.0.0.1:{self.port}/invert/minilm"
        response = httpx.post(url, json={"embedding": self.vector}, trust_env=False, timeout=90)
        return response.status_code, response.json()


@pytest.fixture
def service(tmp_path, vectors):
    folder = Path(tempfile.mkdtemp(prefix="back", dir="/tmp"))  # short, since it holds Unix sockets
    environment = environment_for(folder)
    try:
        with head_node(environment, folder, tmp_path / "ray.log") as (address, _, port):
            yield Service(address, environment, port, tmp_path, vectors[0].tolist())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def damaged_config(folder):
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"format_version": 99, "written_by": "99.0"}))
    return "install embinv 99.0 or newer"


def damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"half")
    return "model.safetensors cannot be read"


def no_folder(folder):
    shutil.rmtree(folder)
    return "there is no folder"


def test_a_bad_checkpoint_fails_plainly_and_the_earlier_one_is_back_with_one_deployment(
    service, tiny_checkpoint, tmp_path
):
    good = tmp_path / "checkpoints" / "minilm-1"
    shutil.copytree(tiny_checkpoint, good)
    first = service.deploy(good)
    assert first.returncode == 0, first
    status, before = service.ask()
    assert status == 200, before
    for number, damage in enumerate((damaged_weights, no_folder, damaged_config)):
        bad = tmp_path / "checkpoints" / f"bad-{number}"
        shutil.copytree(tiny_checkpoint, bad)
        told = damage(bad)
        failed = service.deploy(bad)
        assert failed.returncode == 1 and told in failed.stderr and "Traceback" not in failed.stderr, failed
        status, answer = service.ask_once()
        assert status == 200 and answer["results"] == before["results"]  # by the replicas that were there
        back = service.deploy(good)
        assert back.returncode == 0, back
        status, after = service.ask()
        assert status == 200 and after["results"] == before["results"]
