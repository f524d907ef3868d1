"""`embinv demo`: the whole way on this machine, by jobs/demo.py."""

import subprocess
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import Any


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    two = commands.add_parser(
        "demo",
        help="the whole way on this machine, about 10 minutes",
        description="corpus -> encode -> train -> evaluate -> serve -> invert over HTTP, on synthetic English records.",
    )
    two.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="folder for everything it makes (default runs/demo)"
    )
    two.add_argument("--fresh", action="store_true", help="delete what is there and start over")
    two.set_defaults(run=demo)


def demo(arguments: Namespace) -> None:
    """Runs jobs/demo.py in a process of its own, from the checkout that this package lies in.

    Raises:
        ValueError: the package was installed without its checkout.
    """
    root = Path(__file__).resolve().parent.parent.parent
    script = root / "jobs" / "demo.py"
    if not script.is_file() or not (root / "configs").is_dir():
        raise ValueError(
            "`embinv demo` needs the source checkout (jobs/, configs/): clone the repository, then `make demo`"
        )
    command = [sys.executable, str(script), "--out", arguments.out, *(["--fresh"] if arguments.fresh else [])]
    raise SystemExit(subprocess.run(command, check=False).returncode)
