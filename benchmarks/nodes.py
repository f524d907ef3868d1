"""A Ray cluster of several nodes on one machine, each a `ray start` of its own that can be killed like a machine.

A head without work, and workers with as many CPUs, labels and resources as they are given. All of it carries one
variable in its environment, by which it is found again and ended, and nothing else is. A worker may be hidden from a
folder: it then sees an empty one in its place, as a machine without the shared storage would.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.ports import free_ports
from benchmarks.processes import own_ray_environment

ROOT = Path(__file__).resolve().parents[1]
START_S, END_S, JOB_S = 120.0, 30.0, 300.0
TRIES = 3
RAY = (sys.executable, "-m", "ray.scripts.scripts")


@dataclass
class Node:
    """One `ray start --block`."""

    process: subprocess.Popen[bytes]
    log: Path

    def members(self) -> list[psutil.Process]:
        """Its processes."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def titles(self) -> list[str]:
        """What its processes call themselves; Ray's workers name the actor or task at work in them."""
        found = []
        for process in self.members():
            try:
                found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue  # ended meanwhile
        return found

    def kill(self) -> None:
        """What a power cut does to a machine: all processes of the node are gone at once."""
        members = self.members()
        for process in members:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(members, timeout=END_S)
        self.process.wait(END_S)


@dataclass
class Nodes:
    """Starts with a head; use it with `with`.

    Args:
        environment: of all processes, beside this one's.
        head_cpus: that Ray may give away on the head.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    head_cpus: int = 0

    def __enter__(self) -> "Nodes":
        # Short, since it holds Unix sockets; and every process of this cluster carries it in its environment.
        self.folder = Path(tempfile.mkdtemp(prefix="nodes", dir="/tmp"))
        self.variables = own_ray_environment(self.folder) | {
            # A lost node is known after five seconds, not thirty.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            **self.environment,
        }
        gcs, dashboard, agent, client = free_ports(4)
        self.address, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self.started: list[Node] = []
        try:
            self.head = self._start(
                ("--head", "--num-cpus", self.head_cpus, "--port", gcs, "--node-ip-address", "127.0.0.1"),
                ("--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard),
                ("--dashboard-agent-listen-port", agent, "--ray-client-server-port", client),
            )
            # The job API answers once an agent of a node does.
            self.until(lambda: self._answers(f"{self.dashboard}/api/jobs/") and self.alive() == 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.members():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for node in self.started:
            node.process.wait(END_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_worker(
        self,
        cpus: int = 2,
        gpus: int = 0,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        hidden: Path | None = None,
    ) -> Node:
        """Another node, once the head knows it.

        Args:
            cpus: that Ray may give away there.
            gpus: the same; they need not exist.
            resources: of its own kinds.
            labels: of the node.
            hidden: a folder that it does not see; needs root.

        Raises:
            TimeoutError: it did not come.
        """
        before = self.living()
        for _ in range(TRIES):  # Ray gives a node 30 s to start, which a machine with other things to do may exceed
            (agent,) = free_ports(1)
            # A folder of its own: a node unpacks a job's files anew where it finds them, under a job at work.
            own = self.folder / str(len(self.started))
            node = self._start(
                ("--temp-dir", own),
                ("--address", self.address, "--num-cpus", cpus, "--num-gpus", gpus, "--node-ip-address", "127.0.0.1"),
                ("--dashboard-agent-listen-port", agent),
                ("--resources", dumps(dict(resources or {}))),
                ("--labels", ",".join(f"{name}={label}" for name, label in labels.items())) if labels else (),
                hidden=hidden,
            )
            self.until(lambda node=node: bool(self.living() - before) or node.process.poll() is not None)
            if node.process.poll() is None:
                return node
        raise TimeoutError(f"a node did not start, {TRIES} times:\n{node.log.read_text(errors='replace')[-1500:]}")

    def submit(self, *command: object, cwd: Path = ROOT) -> "Submitted":
        """`ray job submit --working-dir . -- python COMMAND`, running."""
        log = self.folder / f"job-{len(list(self.folder.glob('job-*.log')))}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*RAY, "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", "python"]
                + [str(part) for part in command],
                cwd=cwd,
                env=self.variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Submitted(process, log)

    def alive(self) -> int:
        """How many nodes the head believes to be alive."""
        return len(self.living())

    def living(self) -> set[str]:
        """Ids of the nodes that the head believes to be alive; none if it does not answer."""
        try:
            return {row["node_id"] for row in self.state("nodes") if row["state"] == "ALIVE"}
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return set()

    def state(self, what: str) -> list[dict[str, Any]]:
        """What the head knows of its `nodes`, `actors` or `tasks`, those that have ended included."""
        query = {"limit": 10_000, "detail": True}
        answer = httpx.get(f"{self.dashboard}/api/v0/{what}", params=query, timeout=30, trust_env=False)
        return answer.raise_for_status().json()["data"]["result"]["result"]

    def members(self) -> list[psutil.Process]:
        """All processes of the cluster that run now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAY_TMPDIR") == str(self.folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def until(self, happened: Callable[[], bool], seconds: float = START_S) -> None:
        """Waits for something.

        Raises:
            TimeoutError: it did not happen; the message holds the ends of the nodes' logs.
        """
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                logs = "\n".join(node.log.read_text(errors="replace")[-1500:] for node in self.started)
                raise TimeoutError(f"nothing happened in {seconds:g} s:\n{logs}")
            time.sleep(0.1)

    def _start(self, *options: Sequence[object], hidden: Path | None = None) -> Node:
        log = self.folder / f"node-{len(self.started)}.log"
        command = [*RAY, "start", "--block", "--disable-usage-stats", *(str(part) for some in options for part in some)]
        if hidden is not None:
            hide = 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", hide, "sh", str(hidden), *command]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.started.append(Node(process, log))
        return self.started[-1]

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@dataclass
class Submitted:
    """A job that was sent to a cluster, as the command that sent it sees it."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, happened: Callable[[], bool], seconds: float = JOB_S) -> None:
        """Waits for something while the job runs.

        Raises:
            RuntimeError: it ended before, or nothing happened.
        """
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                what = "hangs" if self.process.poll() is None else "ended too early"
                raise RuntimeError(f"the job {what}:\n{self.text()}")
            time.sleep(0.05)

    def finish(self, seconds: float = JOB_S) -> tuple[int, str]:
        """Exit code and output.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self.process.wait(seconds), self.text()
