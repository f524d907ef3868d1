"""What the server takes, stands and survives: a real `serve run` under load, by its own HTTP.

    python benchmarks/serve.py capacity         inversions/s over the bare model's, and p99 over p50 at 80% of them
    python benchmarks/serve.py overhead         milliseconds that one request takes more than the model (size tiny)
    python benchmarks/serve.py overload         four times the capacity: answers, memory, seconds until it is over
    python benchmarks/serve.py killed_replica   a replica killed under load: requests lost or wrong, seconds until back
    python benchmarks/serve.py scaling          replicas 1 -> 2 -> 1 and 1 -> 0 -> 1
    python benchmarks/serve.py rolling          another checkpoint deployed under load: requests that failed
    python benchmarks/serve.py fuzz             schemathesis and mutated bodies: server errors, tracebacks (size tiny)
    python benchmarks/serve.py all

Each starts servers of its own, with random checkpoints of the size asked for, and ends them, also on Ctrl-C. Needs
`hey` (apt-get install hey), and fuzz needs schemathesis (pip install -e '.[bench]'). Lines on stderr as it goes on,
Markdown tables with --table, one JSON line on stdout. `all` goes on past a measure that fails, says so in its line,
and ends with exit code 1.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

from benchmarks import serve_capacity, serve_changes, serve_fuzz, serve_killed, serve_overload
from benchmarks.serve_checkpoints import TRIMMED, write_checkpoint
from benchmarks.serve_server import PROXIES, scratch_folder
from embinv.models.settings import SIZES

Measure = Callable[[Path, argparse.Namespace], dict[str, Any]]
MEASURES: dict[str, Measure] = {
    "capacity": serve_capacity.measure_capacity,
    "overhead": serve_capacity.measure_overhead,
    "overload": serve_overload.measure_overload,
    "killed_replica": serve_killed.measure_killed_replica,
    "scaling": serve_changes.measure_scaling,
    "rolling": serve_changes.measure_rolling,
    "fuzz": serve_fuzz.measure_fuzz,
}
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "capacity": serve_capacity.tables,
    "overhead": serve_capacity.tables,
    "overload": serve_overload.tables,
    "killed_replica": serve_killed.tables,
    "scaling": serve_changes.tables,
    "rolling": serve_changes.tables,
    "fuzz": serve_fuzz.tables,
}
USUAL_SIZES = {"capacity": "base", "overload": "base"}  # the others: tiny


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measure on a random checkpoint of its size."""
    size = arguments.size or USUAL_SIZES.get(name, "tiny")
    own = argparse.Namespace(**vars(arguments) | {"size": size})
    with scratch_folder() as folder:
        checkpoint = write_checkpoint(folder / "checkpoint", size, arguments.vocabulary)
        print(f"{name}: size {size}", file=sys.stderr, flush=True)
        return MEASURES[name](checkpoint, own)


def everything(names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The measures one after the other; one that fails leaves its `errors` entry to those that come after it."""
    result: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in names:
        try:
            found = measured(name, arguments)
        except Exception as error:  # whatever it is, the measures before and after it took half an hour
            if len(names) == 1:
                raise
            errors[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: {errors[name]}", file=sys.stderr, flush=True)
            continue
        print(json.dumps(found), file=sys.stderr, flush=True)
        if arguments.table:
            print(TABLES[name](found))
        result |= found
    return result | ({"errors": errors} if errors else {})


def command_line() -> argparse.ArgumentParser:
    """The flags; what a measure does not read does nothing to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "all"])
    parser.add_argument("--size", choices=SIZES, help="of the model (default: base for capacity, overload; else tiny)")
    parser.add_argument(
        "--vocabulary", type=_vocabulary, default=TRIMMED, help=f"tokens, or `whole` (default: {TRIMMED})"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of a replica (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load: capacity, overload (default 60)")
    parser.add_argument("--repeats", type=int, default=3, help="capacity: sweeps of the bare model (default 3)")
    parser.add_argument("--requests", type=int, default=200, help="overhead: one after another (default 200)")
    parser.add_argument("--cases", type=int, default=2000, help="fuzz: of schemathesis (default 2000)")
    parser.add_argument("--mutated", type=int, default=10_000, help="fuzz: mutated bodies (default 10000)")
    parser.add_argument(
        "--proxy",
        choices=PROXIES,
        default="shipped",
        help="before Serve (default: HAProxy if it is installed, as `make serve`)",
    )
    parser.add_argument("--table", action="store_true", help="print Markdown tables before the JSON line")
    return parser


def _vocabulary(value: str) -> int | None:
    return None if value == "whole" else int(value)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The command line."""
    arguments = command_line().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)  # servers end with their blocks
    names = list(MEASURES) if arguments.measure == "all" else [arguments.measure]
    result: dict[str, Any] = {"benchmark": "serve", "cores": os.cpu_count(), "threads": arguments.threads}
    try:
        result |= everything(names, arguments)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from error
    except KeyboardInterrupt:
        print("stopped; the servers have ended", file=sys.stderr)
        raise SystemExit(130) from None
    print(json.dumps(result))
    if "errors" in result:
        print(f"error: {', '.join(result['errors'])} failed", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
