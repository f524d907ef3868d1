"""How the rate of jobs/encode.py grows with nodes, and whether it holds with more rows.

Nodes of one CPU each on this machine: two of them have what one machine of two cores has, so what is seen is what the
cluster costs, not what a network does.
"""

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.encode import write_corpus
from benchmarks.node_deaths import TOKENIZER, finished, job
from benchmarks.nodes import Nodes

NODES = 2
SHARD = 8192
HASHED = ("--set", "encoder.kind=hash", "--set", "encoder.model=hash", "--set", f"data.tokenizer={TOKENIZER}")


def scaling(arguments: Namespace, scratch: Path) -> dict[str, Any]:
    """Rows a second by encoder, nodes and rows; `speedup` is that of all nodes over one."""
    corpora = {}
    for rows in arguments.sizes:
        corpora[rows] = scratch / f"texts-{rows}"
        write_corpus(corpora[rows], arguments.texts, rows, SHARD)
    wanted = [("hash", rows) for rows in arguments.sizes] + [("minilm", arguments.sizes[0])]
    rates: dict[str, dict[str, Any]] = {}
    with Nodes() as nodes:
        for count in range(1, NODES + 1):
            nodes.add_worker(cpus=1)
            for encoder, rows in wanted:
                out = scratch / "pairs"
                settings = [*(HASHED if encoder == "hash" else ()), "--set", f"encoding.workers={count}"]
                began = monotonic()
                finished(
                    nodes,
                    *job("encode", "--texts", corpora[rows], "--out", out, *settings),
                    *("--set", f"data.shard_rows={SHARD if encoder == 'hash' else 512}"),
                )
                stats = json.loads((out / "_stats.json").read_text())
                steady = stats["seconds"] - stats["start_up_seconds"]
                found = {
                    "rows_per_second": round(stats["rows"] / max(steady, 1e-9)),
                    "seconds": stats["seconds"],
                    "start_up_seconds": stats["start_up_seconds"],
                    "with_submission_seconds": round(monotonic() - began, 1),
                }
                rates.setdefault(f"{encoder}-{rows}", {})[str(count)] = found
                print(f"{encoder} {rows:,} rows on {count} node(s): {found}", file=sys.stderr, flush=True)
                shutil.rmtree(out)
    return {
        "rates": rates,
        "speedup": {
            name: round(by[str(NODES)]["rows_per_second"] / by["1"]["rows_per_second"], 2) for name, by in rates.items()
        },
    }
