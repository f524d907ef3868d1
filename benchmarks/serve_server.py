"""A server as a user starts it, and its end: `serve run`, or a cluster that `serve_app.deploy` sends a config to.

Each in a session, a Ray folder and on ports of its own, so that servers of others neither find it nor are found. Its
config is the shipped one with another port and checkpoint, its environment that of cluster/serve.env, as with
`make serve`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.ports import free_ports
from benchmarks.processes import own_ray_environment
from benchmarks.serve_checkpoints import NAME

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SERVE_ENVIRONMENT = ROOT / "cluster" / "serve.env"
HAPROXY = ROOT / "cluster" / "haproxy"
READY_S, END_S = 300.0, 60.0
PROXIES = ("shipped", "ray", "haproxy")
REPLICA = f"ray::ServeReplica:{NAME}:InverterDeployment"


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: of HTTP, without a slash at the end.
        process: the one that was started; all others come of it.
        log: what it prints.
        environment: of its processes.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    @property
    def invert(self) -> str:
        """URL of the inversion."""
        return f"{self.url}/invert/{NAME}"

    def processes(self) -> list[psutil.Process]:
        """All that run now, Ray's own included."""
        return tree_of(self.process.pid)

    def replicas(self) -> list[psutil.Process]:
        """Processes that hold the model, from when they begin to load it."""
        return [process for process in self.processes() if _title(process).startswith(REPLICA)]

    def memory_mb(self) -> float:
        """Resident memory of all processes; what they share counts for each."""
        total = 0
        for process in self.processes():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total / 1e6

    def last_lines(self, characters: int = 3000) -> str:
        """The end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


def tree_of(pid: int) -> list[psutil.Process]:
    """A process that leads a session, its descendants, and whoever else is of the session."""
    found: dict[int, psutil.Process] = {}
    with suppress(psutil.Error):
        leader = psutil.Process(pid)
        found |= {process.pid: process for process in [leader, *leader.children(recursive=True)]}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid not in found and os.getsid(process.pid) == pid:
                found[process.pid] = process
    return list(found.values())


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def read_environment(text: str) -> dict[str, str]:
    """The KEY=VALUE lines of cluster/serve.env; # begins a comment line.

    Raises:
        ValueError: another line; the message has its number.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"cluster/serve.env:{number}: {line!r} is not KEY=VALUE")
        found[name] = value.strip().strip("\"'")
    return found


def has_haproxy() -> bool:
    """Whether HAProxy can stand before Serve here."""
    return shutil.which("haproxy") is not None and HAPROXY.exists()


def shipped_proxy() -> str:
    """The one that `make serve` takes: HAProxy where it is installed."""
    return "haproxy" if has_haproxy() else "ray"


def serving_environment(ray_folder: Path, proxy: str = "shipped", cpus: int = 0) -> dict[str, str]:
    """The environment of a server.

    Args:
        ray_folder: where Ray keeps its sockets and logs; a short path.
        proxy: shipped (the one of `make serve`), ray or haproxy.
        cpus: that Ray counts at least; replicas of more threads than the machine has cores start too.

    Raises:
        ValueError: cluster/serve.env cannot be read.
    """
    shipped = read_environment(SERVE_ENVIRONMENT.read_text(encoding="utf-8")) if SERVE_ENVIRONMENT.exists() else {}
    metrics, stats = free_ports(2)
    own = {
        "PYTHONPATH": str(ROOT),  # as an installed embinv would be on every node
        # HAProxy's own files and ports; the defaults are one place for a whole machine.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(ray_folder / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(ray_folder / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(ray_folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(ray_folder / "haproxy" / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(ray_folder / "haproxy" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
    }
    if cpus > (os.cpu_count() or 1):
        own["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": cpus})
    if (shipped_proxy() if proxy == "shipped" else proxy) == "haproxy":
        own |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY)}
    return own_ray_environment(ray_folder) | shipped | own


def config_for(checkpoint: Path, port: int, **encoder: Any) -> dict[str, Any]:
    """The shipped config with one encoder, on another port; `encoder`: its arguments that are other than shipped.

    Raises:
        ValueError: the shipped config has no application of that encoder.
    """
    tree = yaml.safe_load((ROOT / "serve_app" / "config.yaml").read_text(encoding="utf-8"))
    tree["http_options"] |= {"host": "127.0.0.1", "port": port}
    for application in tree["applications"]:
        if application["name"] == NAME:
            application["args"] |= {"checkpoint": str(checkpoint), "device": "cpu"} | encoder
            return tree
    raise ValueError(f"serve_app/config.yaml has no application {NAME}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for as long as it is needed; short, since Ray keeps Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="sb", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve_run(checkpoint: Path, proxy: str = "shipped", **encoder: Any) -> Iterator[Server]:
    """`serve run` on a Ray of its own, until the block ends; yields once the encoder is ready.

    Args:
        checkpoint: a folder.
        proxy: see `serving_environment`.
        encoder: arguments of the encoder's application that are other than shipped.

    Raises:
        RuntimeError: it did not become ready; the message ends with what it printed.
    """
    (port,) = free_ports(1)
    threads, most = int(encoder.get("threads", 1)), int(encoder.get("max_replicas", 1))
    with scratch_folder() as folder:
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(config_for(checkpoint, port, **encoder)), encoding="utf-8")
        environment = serving_environment(folder, proxy, threads * (most + 1) + 2) | {"RAY_ADDRESS": "local"}
        url, command = f"http://127.0.0.1:{port}", [str(BIN / "serve"), "run", str(config)]
        with _running(command, environment, folder / "serve.log", signal.SIGINT) as process:
            server = Server(url, process, folder / "serve.log", environment)
            wait_until_ready(server)
            yield server


@contextmanager
def cluster(cpus: int, proxy: str = "shipped") -> Iterator[tuple[Server, str]]:
    """A head node of its own with nothing deployed, until the block ends: where it will serve, and its dashboard's URL.

    Raises:
        RuntimeError: it did not start; the message ends with what it printed.
    """
    http_port, port, dashboard, agent, client = free_ports(5)
    with scratch_folder() as folder:
        environment = serving_environment(folder, proxy)
        options = {
            "port": port,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "node-ip-address": "127.0.0.1",
            "num-cpus": cpus,
            "object-store-memory": 100_000_000,
            "temp-dir": folder,
        }
        command = [str(BIN / "ray"), "start", "--head", "--block"]
        command += [f"--{name}={value}" for name, value in options.items()]
        address = f"http://127.0.0.1:{dashboard}"
        with _running(command, environment, folder / "ray.log", signal.SIGTERM) as process:
            server = Server(f"http://127.0.0.1:{http_port}", process, folder / "ray.log", environment)
            _poll(server, lambda: _answers(f"{address}/api/version"), "the dashboard")
            yield server, address


def deploy(server: Server, address: str, checkpoint: Path, **encoder: Any) -> None:
    """`python -m serve_app.deploy` of the shipped config with this checkpoint; returns when it runs.

    Raises:
        RuntimeError: it failed; the message has what it printed.
    """
    config = server.log.with_name("config.yaml")
    tree = config_for(checkpoint, int(server.url.rpartition(":")[2]), **encoder)
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [sys.executable, "-m", "serve_app.deploy", str(config), "--address", address]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, file=sys.stderr, end="", flush=True)
    if done.returncode != 0:
        raise RuntimeError(f"serve_app.deploy ended with {done.returncode}: {done.stdout[-2000:]}")


def wait_until_ready(server: Server) -> None:
    """Waits for /readyz.

    Raises:
        RuntimeError: the server ended, or is not ready in READY_S.
    """
    _poll(server, lambda: _answers(f"{server.url}/readyz"), "/readyz")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def _poll(server: Server, attempt: Any, what: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if attempt():
            return
        time.sleep(0.25)
    raise RuntimeError(f"{what} of {server.url} did not answer; the server printed:\n{server.last_lines()}")


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path, stop: signal.Signals) -> Iterator[Any]:
    """A program in a session of its own; it and what came of it, nothing else, ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            left = tree_of(process.pid)
            process.send_signal(stop)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            finally:  # a second Ctrl-C included
                for each in [*left, *tree_of(process.pid)]:
                    with suppress(psutil.Error):  # those that are gone; a process of the same id is not one of them
                        each.kill()
