"""`embinv compare`: which of two reports of jobs/evaluate.py is better, text by text."""

from argparse import Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any

from embinv.commands.values import positive
from embinv.evaluation import scores
from embinv.evaluation.report import LABELS, shown


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    both = commands.add_parser(
        "compare",
        help="two reports on the same texts",
        description="Say which of two reports of jobs/evaluate.py is better, text by text.",
        epilog="example:\n  embinv compare runs/one runs/other",
        formatter_class=RawDescriptionHelpFormatter,
    )
    both.add_argument("first", metavar="DIR", help="folder with a report")
    both.add_argument("second", metavar="DIR", help="another one, on the same pairs")
    both.add_argument("--resamples", type=positive, default=10_000, help="of the bootstrap (default 10,000)")
    both.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    both.set_defaults(run=compare)


def compare(arguments: Namespace) -> None:
    """Prints each figure of two reports, and how much they differ.

    Raises:
        ValueError: they cannot be compared.
    """
    first, second = Path(arguments.first), Path(arguments.second)
    found = scores.compare(first, second, arguments.resamples, arguments.seed)
    if not found:
        raise ValueError(f"{first} and {second} have no figure in common")
    n = next(iter(found.values())).n
    print(f"{n:,} texts; difference: {second} less {first}, with its 95% interval (paired bootstrap over texts)\n")
    rows = [["", str(first), str(second), "difference", "95% interval", "p"]]
    for name, each in found.items():
        values = [shown(name, value) for value in (each.first, each.second, each.value, each.low, each.high)]
        interval = f"{values[3]} to {values[4]}"
        rows.append(
            [LABELS.get(name, name), *values[:3], interval, f"{each.p:.1g}" if each.p < 0.1 else f"{each.p:.2f}"]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
