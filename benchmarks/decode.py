"""What decoding brings and what it costs.

    python benchmarks/decode.py quality     every strategy at 1, 2, 4, 8, 16 and L passes on a checkpoint's test texts
    python benchmarks/decode.py speed       inversions/s by batch and size, and where the time goes
    python benchmarks/decode.py all

`quality` takes the demo's checkpoint and pairs unless told otherwise; `speed` makes models of its own, since random
weights cost what trained ones do. Lines on stderr as it goes on, Markdown tables with --table, one JSON line on stdout.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

from benchmarks.decode_quality import measure_quality
from benchmarks.decode_quality import tables as quality_tables
from benchmarks.decode_speed import measure_speed
from benchmarks.decode_speed import tables as speed_tables
from embinv.models.settings import SIZES

ROOT = Path(__file__).resolve().parents[1]


def quality(arguments: argparse.Namespace) -> dict[str, Any]:
    """Strategies and passes on held-out texts."""
    return measure_quality(arguments.checkpoint, arguments.data, arguments.rows, arguments.threads, arguments.repeats)


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Inversions a second, and the share of the model's own arithmetic."""
    return measure_speed(arguments.sizes, arguments.seq_len, arguments.threads, arguments.repeats)


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"quality": quality, "speed": speed}
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"quality": quality_tables, "speed": speed_tables}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "all"])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs" / "demo" / "checkpoint", metavar="DIR")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "demo" / "pairs", metavar="DIR")
    parser.add_argument("--rows", type=int, default=2000, help="quality: test texts at most (default 2000)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "base"], help="speed (default tiny base)")
    parser.add_argument("--seq-len", type=int, default=32, metavar="L", help="speed (default 32)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="of what is timed; medians count (default 3)")
    parser.add_argument("--table", action="store_true", help="print Markdown tables before the JSON line")
    arguments = parser.parse_args()
    chosen = list(MEASURES) if arguments.measure == "all" else [arguments.measure]
    result: dict[str, Any] = {"benchmark": "decode", "cores": os.cpu_count(), "threads": arguments.threads}
    try:
        for name in chosen:
            found = MEASURES[name](arguments)
            if arguments.table:
                print(TABLES[name](found))
            result |= found
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(result))


if __name__ == "__main__":
    main()
