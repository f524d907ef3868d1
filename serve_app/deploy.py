"""`python -m serve_app.deploy CONFIG`: deploys onto a running cluster, and ends when it runs or has failed.

`serve deploy` says yes as soon as a config is taken and ignores what it does not know. This checks the file first
(`serve_app.config_check`), then follows the deployment of that very config until every application is RUNNING. Exit
status: 0 it runs, 1 it failed or time was up, 2 the file or the command line is wrong, 130 interrupted.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.config_check import Tree, read_config, require_keys
from serve_app.dashboard import Dashboard, Unreachable

ADDRESS = "http://127.0.0.1:8265"
POLL_S = 0.5
REASON_LINES = 8

Details = dict[str, Any]
Say = Callable[[str], None]


class Failed(Exception):
    """The deployment failed; the message is the reason."""


def deploy(tree: Tree, dashboard: Dashboard, timeout_s: float, say: Say) -> None:
    """Puts a valid config and waits until each of its applications is RUNNING with it.

    Raises:
        ValueError: what runs on the cluster stands against it; nothing was changed.
        Unreachable: the dashboard does not answer.
        Failed: an application failed, or time is up.
    """
    deadline = time.monotonic() + timeout_s
    before = dashboard.details()
    require_same_listener(tree, before)
    for name in sorted(removed(tree, before)):
        say(f"{name}: will be removed, since the file does not name it")
    try:
        dashboard.put(tree, timeout_s)
    except ValueError as error:
        raise Failed(f"Serve refused the config: {reason(str(error))}") from error
    wait_until_running(tree, before, dashboard, deadline, say)


def wait_until_running(tree: Tree, before: Details, dashboard: Dashboard, deadline: float, say: Say) -> None:
    """Follows a config that was put.

    Args:
        tree: the config.
        before: what ran before it was put, so that an answer about the old one is not taken for the new.
        dashboard: where to ask.
        deadline: of `time.monotonic()`.
        say: takes one line a change.

    Raises:
        Failed: as `deploy`.
    """
    names = [application.get("name", "default") for application in tree["applications"]]
    said: dict[str, str] = {}
    while True:
        try:
            now = dashboard.details()["applications"]
        except Unreachable as error:
            now, lines = {}, {"": f"waiting: {error}"}
        else:
            lines = {name: f"{name}: {state(now.get(name), before['applications'].get(name))}" for name in names}
        for name, line in lines.items():
            if said.get(name) != line:
                say(line)
        said |= lines
        if now:
            said.pop("", None)
        fresh = {name: now[name] for name in names if is_fresh(now.get(name), before["applications"].get(name))}
        for name, application in fresh.items():
            if application["status"] == "DEPLOY_FAILED":
                raise Failed(f"{name}: {why(application)}")
        if len(fresh) == len(names) and all(application["status"] == "RUNNING" for application in fresh.values()):
            break
        if time.monotonic() >= deadline:
            waiting = [name for name in names if fresh.get(name, {}).get("status") != "RUNNING"]
            found = "; ".join(f"{name}: {why(now[name])}" for name in waiting if name in now and why(now[name]))
            raise Failed(f"time is up, and not RUNNING: {', '.join(waiting)}{f' ({found})' if found else ''}")
        time.sleep(POLL_S)
    for application in tree["applications"]:
        name = application.get("name", "default")
        if is_same_code(application, before["applications"].get(name)):
            say(f"{name}: its args are as they were, so its replicas were kept; new files need a new path")


def is_fresh(application: Details | None, before: Details | None) -> bool:
    """Whether what the cluster says of an application is about the config put last: that sets the time."""
    if application is None:
        return False
    return before is None or application["last_deployed_time_s"] != before["last_deployed_time_s"]


def is_same_code(application: Tree, before: Details | None) -> bool:
    """Whether Serve has no cause to start an application's replicas anew."""
    config = (before or {}).get("deployed_app_config")
    if not config or (before or {}).get("status") != "RUNNING":
        return False
    return all(
        (config.get(key) or {}) == (application.get(key) or {}) for key in ("import_path", "args", "runtime_env")
    )


def removed(tree: Tree, before: Details) -> set[str]:
    """Applications that a config put before had and this one has not."""
    kept = {application.get("name", "default") for application in tree["applications"]}
    running = before["applications"].items()
    return {name for name, application in running if application.get("source") == "declarative"} - kept


def require_same_listener(tree: Tree, before: Details) -> None:
    """Refuses other HTTP options than those that Serve listens with: it would keep its own and say nothing.

    Raises:
        ValueError: names the first option that differs.
    """
    running = before.get("http_options")
    if not running or not before.get("proxies"):
        return
    wanted = ServeDeploySchema.model_validate(tree)
    options = {f"http_options.{name}": value for name, value in wanted.http_options.model_dump(mode="json").items()}
    options["proxy_location"] = wanted.proxy_location.value
    found = {f"http_options.{name}": value for name, value in running.items()}
    found["proxy_location"] = before.get("proxy_location")
    for name, value in options.items():
        if "password" not in name and name in found and found[name] is not None and found[name] != value:
            raise ValueError(
                f"{name}: {value}, but Serve runs on this cluster with {found[name]} and cannot change it; "
                "give the same, or run `serve shutdown` first"
            )


def state(application: Details | None, before: Details | None) -> str:
    """An application in one line: its status, and replicas that run of those that should, by deployment."""
    if application is None or not is_fresh(application, before):
        return "waiting"
    counts = []
    for name, deployment in application["deployments"].items():
        running = sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        counts.append(f"{name} {running}/{deployment['target_num_replicas']}")
    return application["status"] + (f" ({', '.join(counts)})" if counts else "")


def why(application: Details) -> str:
    """The reasons that an application and its deployments give."""
    messages = [application["message"]]
    for name, deployment in application["deployments"].items():
        if deployment["status"] not in {"HEALTHY", "UPSCALING", "DOWNSCALING"} and deployment["message"]:
            messages.append(f"{name}: {reason(deployment['message'])}")
    return " ".join(filter(None, [reason(messages[0]), *messages[1:]]))


def reason(message: str) -> str:
    """A message without its traceback, its colours and other control characters: what the last exception says."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [re.sub(r"[^\S ]|[\x00-\x1f\x7f-\x9f]", " ", line).rstrip() for line in plain.split("\n")]
    frames = [row for row, line in enumerate(lines) if re.match(r"\s+File \"", line)]
    if frames:
        lines = lines[frames[-1] + 1 :]
        while lines and lines[0].startswith("    "):  # the frame's source
            lines = lines[1:]
    return "\n".join([line for line in lines if line][-REASON_LINES:])


# The command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    dashboard = None

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        tree = read_config(options.config)
        require_keys(tree, options.insecure)
        if options.dry_run:
            say(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip())
            return 0
        with Dashboard(options.address) as dashboard:
            deploy(tree, dashboard, options.timeout, say)
    except ValueError as error:
        return _fail(str(error), 2)
    except (Failed, Unreachable) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        going = f"the deployment goes on; see `serve status --address {options.address}`"
        return _fail(f"interrupted; {going if dashboard and dashboard.was_put else 'nothing was sent'}", 130)
    names = ", ".join(application.get("name", "default") for application in tree["applications"])
    say(f"deployed: {names}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.deploy", description="Deploys a Serve YAML and waits until it runs, or says why not."
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="such as serve_app/config.yaml")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_DASHBOARD_ADDRESS", ADDRESS),
        help=f"of the cluster's dashboard; $RAY_DASHBOARD_ADDRESS, else {ADDRESS}",
    )
    parser.add_argument("--timeout", type=_seconds, default=300.0, help="seconds to wait (300)")
    parser.add_argument("--insecure", action="store_true", help="allow an address that others reach without API keys")
    parser.add_argument("--dry-run", action="store_true", help="check, print what would be sent, and send nothing")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"serve_app.deploy: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
