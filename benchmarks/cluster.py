"""A cluster of several nodes on this machine: what a dead node costs, how jobs scale, and how good `embinv plan` is.

    python benchmarks/cluster.py encode_node_killed     rows lost when a node dies in the middle of jobs/encode.py
    python benchmarks/cluster.py train_node_killed      whether jobs/train.py comes to the same end without it
    python benchmarks/cluster.py serve_node_killed      requests that fail when a node with a replica dies
    python benchmarks/cluster.py scaling                rows a second of jobs/encode.py, by nodes and rows
    python benchmarks/cluster.py plan_error             `embinv plan` against runs on this machine
    python benchmarks/cluster.py all

A node is a `ray start` of its own, and jobs are sent with `ray job submit`. Lines on stderr as it goes on, one JSON
line on stdout.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

from benchmarks.cluster_scaling import scaling
from benchmarks.encode import ENGLISH
from benchmarks.node_deaths import DEATHS
from benchmarks.plan_error import plan_error
from benchmarks.serve_server import PROXIES

MEASURES = {**DEATHS, "scaling": scaling, "plan_error": lambda arguments, scratch: plan_error(scratch, arguments.texts)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "all"])
    parser.add_argument("--rows", type=int, default=6000, help="encode_node_killed: texts (default 6,000)")
    parser.add_argument("--steps", type=int, default=200, help="train_node_killed: optimizer steps (default 200)")
    parser.add_argument("--proxy", choices=PROXIES, default="ray", help="serve_node_killed: what speaks HTTP")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="scaling: rows without a model; the first size is also encoded with MiniLM",
    )
    parser.add_argument(
        "--texts", type=Path, default=ENGLISH, metavar="FILE", help="scaling, plan_error: Parquet with a text column"
    )
    arguments = parser.parse_args()
    if arguments.measure not in DEATHS and not arguments.texts.is_file():
        raise SystemExit(f"{arguments.texts} is not there; name a Parquet file with a text column: --texts FILE")
    result: dict[str, Any] = {}
    for name in MEASURES if arguments.measure == "all" else [arguments.measure]:
        print(f"--- {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="cluster") as scratch:
            result[name] = MEASURES[name](arguments, Path(scratch))
        print(result[name], file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "cluster", "cores": os.cpu_count()} | result))


if __name__ == "__main__":
    main()
