"""A job sent to a running cluster with `ray job submit`, as the README says."""

import json
import socket

import pytest

from benchmarks.ports import free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def cluster(start_job):
    """A cluster with a dashboard; its processes end with the test, by their own handle."""
    gcs, dashboard, agent, client = free_ports(4)
    head = start_job(
        *("-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats"),
        *("--port", gcs, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard),
        *("--dashboard-agent-listen-port", agent, "--ray-client-server-port", client),
    )
    head.until(lambda: answers(dashboard) and answers(agent))
    return f"http://127.0.0.1:{dashboard}"


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_job_runs_on_the_cluster_that_it_is_sent_to(cluster, start_job, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"Parcel number {n} left Hollfeld this morning." for n in range(9)))
    submit = ("-m", "ray.scripts.scripts", "job", "submit", "--address", cluster, "--working-dir", ".", "--")
    job = ("python", "jobs/corpus.py", "--config", "configs/minilm.yaml", "--texts", tmp_path / "a.txt", "--out")
    code, output = start_job(*submit, *job, tmp_path / "out").finish()
    assert code == 0, output
    assert "succeeded" in output and f"9 texts in {tmp_path / 'out'}" in output
    assert json.loads((tmp_path / "out" / "_stats.json").read_text())["rows"] == 9

    code, output = start_job(*submit, *job, tmp_path / "out", "--rows", "3").finish()  # a mistake is not a success
    assert code == 1, output
    assert "holds a corpus made with another data.rows" in output
