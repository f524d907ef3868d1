"""The `embinv` command; what each of its commands does is in embinv/commands/."""

import argparse
import logging
import sys
from collections.abc import Sequence

from embinv.commands import align, audit, compare, demo, importing, invert

COMMANDS = (invert, audit, align, compare, importing, demo)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="embinv", description="Recover text from embedding vectors.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; a user's mistake ends it with one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
