"""`embinv upgrade`: a checkpoint of an older embinv in today's format, with what it lacks."""

from argparse import Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any

from embinv.checkpoint_versions import FORMAT_VERSION
from embinv.data.schema import SCHEMA_VERSION, read_recipe


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    own = commands.add_parser(
        "upgrade",
        help="an older checkpoint in today's format",
        description="Rewrite a checkpoint folder in the newest format, whole or not at all; its older config.json "
        "stays beside the new one. Older folders are read as they are: this is for folders that are to be passed on, "
        "and for what older ones lack.",
        epilog="examples:\n"
        "  embinv upgrade --checkpoint runs/my/checkpoint\n"
        "  embinv upgrade --checkpoint runs/my/checkpoint --data runs/my/pairs\n"
        "                                      and the form of the vectors that it learnt from, to recognise dumps\n"
        "  embinv upgrade --data runs/my/pairs   say which version pairs are of",
        formatter_class=RawDescriptionHelpFormatter,
    )
    own.add_argument("--checkpoint", metavar="DIR", help="folder to rewrite")
    own.add_argument(
        "--data", metavar="DIR", help="with --checkpoint: the pairs it learnt from, or of a corrector the hypotheses"
    )
    own.set_defaults(run=upgrade)


def upgrade(arguments: Namespace) -> None:
    """Upgrades a checkpoint, or looks at pairs.

    Raises:
        ValueError: a folder is none, or of a newer embinv, or the two do not belong together.
    """
    from embinv.upgrading import upgrade_checkpoint

    if arguments.checkpoint is None:
        if arguments.data is None:
            raise ValueError("--checkpoint DIR or --data DIR is missing; give what is to be upgraded")
        read_recipe(arguments.data)
        print(f"{arguments.data}: pairs of version {SCHEMA_VERSION}, the newest; nothing to do")
        return
    folder = Path(arguments.checkpoint)
    done = upgrade_checkpoint(folder, None if arguments.data is None else Path(arguments.data))
    if not done.is_changed:
        print(f"{folder}: format {FORMAT_VERSION}, the newest; nothing to do")
        return
    if done.before != done.after:
        print(
            f"{folder}: format {done.before} -> {done.after}; the older config.json is config.format-{done.before}.json"
        )
    for name in done.added:
        print(f"{folder}: added {name}")
