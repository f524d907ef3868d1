"""The `embinv` command; what each of its commands does is in embinv/commands/."""

import argparse
import logging
import sys
from collections.abc import Sequence

from embinv.commands import align, audit, backup, compare, demo, importing, invert, plan, upgrade

COMMANDS = (invert, audit, align, compare, importing, plan, backup, upgrade, demo)


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
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it can", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
