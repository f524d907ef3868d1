"""Requests that no client means: schemathesis over the OpenAPI schema, and mutated bodies. None may upset the server.

Upset is a status of 500 or more other than 503, which the schema documents, a traceback or a file's line in an answer,
or no answer at all.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from benchmarks.serve_checkpoints import NAME
from benchmarks.serve_load import HANGS_S, connections
from benchmarks.serve_mutations import Mutated, mutated_bodies
from benchmarks.serve_server import BIN, Server, serve_run

CLIENTS = 8
DOCUMENTED = 503
LEAKS = ("Traceback", 'File "')
ROUNDS = 12  # of schemathesis, at most
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
INSTALL = "fuzz needs schemathesis; install it with `.venv/bin/pip install -e '.[bench]'`"


@dataclass(frozen=True)
class Seen:
    """One answer: what caused it, its status (0: none came), whether it shows what it should not."""

    cause: str
    status: int
    leaks: bool
    shown: str = ""


def leaks(text: str) -> bool:
    """Whether an answer shows a traceback or where a file stands."""
    return any(sign in text for sign in LEAKS)


def upset(seen: Iterable[Seen]) -> dict[str, Any]:
    """Server errors, tracebacks, requests without an answer, and all by status."""
    seen = list(seen)
    wrong = [each for each in seen if each.status >= 500 and each.status != DOCUMENTED]
    bad = [each for each in seen if each in wrong or each.leaks or not each.status]
    return {
        "cases": len(seen),
        "server_errors": len(wrong),
        "tracebacks": sum(each.leaks for each in seen),
        "unanswered": sum(not each.status for each in seen),
        "statuses": {str(status): count for status, count in sorted(Counter(each.status for each in seen).items())},
        "examples": [{"cause": each.cause, "status": each.status, "shown": each.shown[:300]} for each in bad[:5]],
    }


def measure_fuzz(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """Both kinds against one server that also encodes; then whether it still answers.

    Raises:
        ValueError: schemathesis is not installed.
    """
    if not (BIN / "schemathesis").exists() and shutil.which("schemathesis") is None:
        raise ValueError(INSTALL)
    with serve_run(checkpoint, arguments.proxy, threads=arguments.threads, encode=True) as server:
        mutated = upset(asyncio.run(send_mutated(server, mutated_bodies(arguments.mutated))))
        print(f"mutated bodies: {mutated}", file=sys.stderr, flush=True)
        found, failures = run_schemathesis(server, arguments.cases)
        schema = upset(found) | {"failed_checks": failures}
        print(f"schemathesis: {schema}", file=sys.stderr, flush=True)
        ready = httpx.get(f"{server.url}/readyz", trust_env=False, timeout=HANGS_S).status_code
        logged = tracebacks_logged(server.log.parent)
    return {
        "fuzz": {
            **{name: mutated[name] + schema[name] for name in ("cases", "server_errors", "tracebacks", "unanswered")},
            "ready_after": ready == 200,
            "tracebacks_logged": logged,
            "mutated": mutated,
            "schemathesis": schema,
        }
    }


async def send_mutated(server: Server, bodies: Sequence[Mutated]) -> list[Seen]:
    """Answers to each of them, CLIENTS at a time."""
    routes = {
        "invert": server.invert,
        "stream": f"{server.invert}/stream",
        "encode": f"{server.url}/encode/{NAME}",
    }
    seen: list[Seen] = []
    waiting = iter(bodies)

    async def client() -> None:
        for mutated in waiting:
            seen.append(await _send(session, routes[mutated.route], mutated))
            if len(seen) % 1000 == 0:
                print(f"{len(seen)} mutated bodies", file=sys.stderr, flush=True)

    async with connections() as session:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seen


async def _send(session: aiohttp.ClientSession, url: str, mutated: Mutated) -> Seen:
    cause = f"{mutated.route}, {mutated.kind}: {mutated.body[:80]!r} {mutated.headers}"
    try:
        async with session.post(url, data=mutated.body, headers=mutated.headers) as response:
            text = (await response.read()).decode("utf-8", "replace")
            return Seen(cause, response.status, leaks(text), text)
    except (TimeoutError, aiohttp.ClientError) as error:
        return Seen(cause, 0, False, f"{type(error).__name__}: {error}")


def run_schemathesis(server: Server, cases: int) -> tuple[list[Seen], dict[str, int]]:
    """At least so many cases over all operations, in rounds of other seeds; and what its own checks complained of.

    Raises:
        RuntimeError: it stopped making cases.
    """
    schema = httpx.get(f"{server.url}/openapi.json", trust_env=False).raise_for_status().json()
    each = max(1, cases // (2 * operations_of(schema)))  # so that both kinds of rounds come
    seen: list[Seen] = []
    failures: Counter[str] = Counter()
    for seed in range(ROUNDS):
        found, complaints = _schemathesis_once(server, each, seed)
        seen += found
        failures.update(complaints)
        print(f"{len(seen)} cases of schemathesis", file=sys.stderr, flush=True)
        if len(seen) >= cases:
            return seen, dict(failures.most_common())
        if not found:
            break
    raise RuntimeError(f"schemathesis made {len(seen)} cases instead of {cases}")


def operations_of(schema: dict[str, Any]) -> int:
    """How many operations an OpenAPI schema has, at least one."""
    return max(1, sum(method in METHODS for path in schema.get("paths", {}).values() for method in path))


def _schemathesis_once(server: Server, examples: int, seed: int) -> tuple[list[Seen], Counter[str]]:
    program = str(BIN / "schemathesis") if (BIN / "schemathesis").exists() else "schemathesis"
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        har, report = Path(folder) / "cases.har", Path(folder) / "report.json"
        # Half of the rounds know the encoder's name, since most made-up ones get no further than a 404.
        known = f'[parameters]\nencoder = "{NAME}"\nname = "{NAME}"\n' if seed % 2 == 0 else ""
        Path(folder, "schemathesis.toml").write_text(known, encoding="utf-8")
        command = [program, "run", f"{server.url}/openapi.json", "--seed", str(seed), "--max-examples", str(examples)]
        phases = "examples,coverage,fuzzing" if seed < 2 else "fuzzing"  # coverage has no seed: the same cases again
        command += ["--phases", phases, "--no-shrink", "--continue-on-failure"]
        command += ["--request-timeout", str(HANGS_S), "--suppress-health-check", "all"]
        command += ["--report", "har,json", "--report-har-path", str(har), "--report-json-path", str(report)]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        printed = done.stdout.decode("utf-8", "replace")
        if not (har.exists() and report.exists()):
            raise RuntimeError(f"schemathesis ended with {done.returncode}: {printed[-2000:]}")
        print(printed[-3000:], file=sys.stderr, flush=True)
        return parse_har(har.read_text(encoding="utf-8")), failed_checks(report.read_text(encoding="utf-8"))


def tracebacks_logged(folder: Path) -> int:
    """Tracebacks in what the server printed and in the logs of Ray and Serve, which a caller never sees."""
    found = 0
    for file in (*folder.glob("*.log"), *folder.glob("**/session_2*/logs/**/*.*")):
        if file.suffix in (".log", ".out", ".err") and file.is_file():
            found += file.read_text(encoding="utf-8", errors="replace").count("Traceback (most recent call last)")
    return found


def parse_har(text: str) -> list[Seen]:
    """One for each request of an HTTP archive."""
    seen = []
    for entry in json.loads(text)["log"]["entries"]:
        request, response = entry["request"], entry["response"]
        content = response.get("content", {}).get("text") or ""
        cause = f"{request['method']} {request['url']} {str(request.get('postData', {}).get('text', ''))[:80]}"
        seen.append(Seen(cause[:300], int(response["status"]), leaks(content), content))
    return seen


def failed_checks(text: str) -> Counter[str]:
    """What schemathesis' own checks complained of, by title, from its JSON report."""
    return Counter({each["title"]: each["count"] for each in json.loads(text).get("failures", [])})


def tables(result: dict[str, Any]) -> str:
    """Cases by kind, and what they did."""
    lines = ["| requests | cases | server errors | tracebacks | unanswered | by status |", "|---|---|---|---|---|---|"]
    for name in ("mutated", "schemathesis"):
        found = result["fuzz"][name]
        statuses = ", ".join(f"{count:,} x {status}" for status, count in found["statuses"].items())
        lines.append(
            f"| {name} | {found['cases']:,} | {found['server_errors']} | {found['tracebacks']} "
            f"| {found['unanswered']} | {statuses} |"
        )
    return "\n".join(lines)
