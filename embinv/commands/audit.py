"""`embinv audit`: what a dump of vectors gives away, as a report. jobs/audit.py inverts on many workers first.

The dump is inverted as `embinv invert` does it, into OUT/recovered, and the report is made of what lies there. With
--recovered nothing is inverted: texts that jobs/invert.py wrote are looked at.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from embinv.audit.settings import AuditSettings
from embinv.audit.sweep_settings import SweepSettings
from embinv.checkpoint import read_checkpoint_config
from embinv.commands.audit_report import Wishes, read_before, report
from embinv.commands.invert import inverted
from embinv.commands.inverting import (
    STORES,
    add_dump_arguments,
    add_inverting_arguments,
    dump_settings,
    how_to_invert,
    opened,
    require_apart,
    settings_given,
)
from embinv.commands.values import positive, whole
from embinv.data.dumps.base import MissingLibrary
from embinv.data.schema import read_recipe, reasons, require_same_recipe
from embinv.data.sole_writer import sole_writer
from embinv.dump_inverter import DumpInverter
from embinv.provenance.sittings import PROVENANCE_FILE, begin_sitting, end_sitting

Settings = TypeVar("Settings", bound=BaseModel)

JOB = "embinv audit"
RECOVERED = "recovered"  # in OUT: the texts, window by window
DESCRIPTION = (
    "Say what a dump of vectors gives away: how many texts, whose data, which topics, and what would help.\n"
    "OUT/audit.html opens offline; audit.md and audit.json hold the same; recovered/ the texts themselves, in clear:\n"
    "keep it as you would keep the texts. Examples in the report are redacted unless you say --reveal.\n\n"
)


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "audit",
        help="what a dump gives away, as a report",
        description=DESCRIPTION + STORES,
        epilog="examples:\n"
        "  embinv audit --checkpoint runs/demo/checkpoint --vectors dump.parquet --out runs/audit\n"
        "  ... --text-column text              the dump holds the texts too: compare\n"
        "  ... --text-column text --texts runs/demo/texts\n"
        "                                      a corpus with labelled personal data: how much of it is recovered\n"
        "  ... --defences --data runs/demo/pairs\n"
        "                                      what noise, quantisation, truncation, rotation and redaction would do",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="inverter that jobs/train.py made")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--vectors", metavar="DUMP", help="a file, a folder or a database, see above")
    source.add_argument(
        "--recovered", metavar="PATH", nargs="+", help="texts that were recovered before, by jobs/invert.py"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to go on with")
    parser.add_argument("--overwrite", action="store_true", help="forget what an earlier run of other settings left")
    add_report_arguments(parser)
    add_dump_arguments(parser)
    add_inverting_arguments(parser)
    parser.set_defaults(run=audit)


def add_report_arguments(parser: ArgumentParser) -> None:
    """Adds what the report is made with."""
    parser.add_argument(
        "--text-column", metavar="NAME", help="the dump's column with the original texts, where it has them"
    )
    parser.add_argument(
        "--texts",
        metavar="DIR",
        help="corpus with labelled personal data (jobs/corpus.py) that the dump's ids are of; needs --text-column",
    )
    parser.add_argument(
        "--reveal", action="store_true", help="show examples in clear; the report says so, and when and by whom"
    )
    parser.add_argument("--by", metavar="WHO", help="who makes the report, to stand in it")
    parser.add_argument("--examples", type=whole, default=10, metavar="N", help="texts that are shown (default 10)")
    parser.add_argument("--topics", type=positive, default=8, metavar="N", help="groups of texts at most (default 8)")
    parser.add_argument(
        "--rare", type=positive, default=5, metavar="K", help="words in fewer texts are not shown (default 5)"
    )
    parser.add_argument(
        "--languages", metavar="A,B", help="of texts that do not say theirs (default: all that records are written in)"
    )
    parser.add_argument(
        "--defences",
        action="store_true",
        help="measure what defences leave and what they cost, on the test split of --data; minutes to an hour",
    )
    parser.add_argument("--data", metavar="DIR", help="pairs of this encoder (jobs/encode.py), for --defences")
    parser.add_argument(
        "--adaptation-steps",
        type=whole,
        metavar="N",
        help="of the attacker who retrains on defended vectors, for each defence; 0 leaves him out (default: about a "
        "minute each of the demo's model)",
    )
    parser.add_argument(
        "--defence-rows", type=positive, default=300, metavar="N", help="texts of the sweep at most (default 300)"
    )


def audit(arguments: Namespace) -> None:
    """Inverts a dump and reports on it.

    Raises:
        ValueError: checkpoint, dump, texts or an option cannot be used.
    """
    wishes, out = wishes_of(arguments), Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    if arguments.recovered:
        _reported(arguments, wishes, [Path(each) for each in arguments.recovered], out)
        return
    require_apart(out, arguments)
    inverter = DumpInverter(how_to_invert(arguments))
    with sole_writer(out):
        texts = inverted(arguments, inverter, out / RECOVERED, JOB)
        del inverter
        _reported(arguments, wishes, [texts.out], out)


def _reported(arguments: Namespace, wishes: Wishes, recovered: Sequence[Path], out: Path) -> None:
    """Reports on texts, and notes beside the report who made it; the report itself is the same for the same input."""
    found = read_before(recovered, Path(arguments.checkpoint))
    begin_sitting(out / PROVENANCE_FILE, JOB, settings_given(arguments))
    report(arguments, wishes, found, out)
    end_sitting(out / PROVENANCE_FILE, JOB)


def wishes_of(arguments: Namespace) -> Wishes:
    """What the flags of `add_report_arguments` ask for; what it takes is looked for now, and not after the work.

    Raises:
        ValueError: a flag cannot be used, goes with another one that is not given, or names what is not there.
    """
    if find_spec("presidio_analyzer") is None:
        raise MissingLibrary("a report needs Presidio: pip install 'embinv[audit]'")
    if arguments.texts and not arguments.text_column:
        raise ValueError("--texts says what is labelled in the originals; name their column with --text-column too")
    if arguments.texts and not any(Path(arguments.texts).glob("*.parquet")):
        raise ValueError(f"--texts {arguments.texts}: holds no texts; give the folder that jobs/corpus.py made")
    if arguments.vectors and arguments.text_column:
        _require_column(arguments)
    given: dict[str, Any] = {
        "text_column": arguments.text_column,
        "examples": arguments.examples,
        "reveal": arguments.reveal,
        "k": arguments.rare,
        "topics": arguments.topics,
        "seed": arguments.seed,
    }
    if arguments.languages:
        given["languages"] = tuple(arguments.languages.split(","))
    settings = _validated(AuditSettings, given, {"k": "--rare"})
    if not arguments.defences:
        return Wishes(settings, None)
    if not arguments.data:
        raise ValueError("--defences needs --data DIR: pairs of this encoder, whose train split is the attacker's own")
    config, data = read_checkpoint_config(arguments.checkpoint), Path(arguments.data)
    require_same_recipe(read_recipe(data), config.pairs, data, f"the checkpoint {arguments.checkpoint}")
    adaptation: dict[str, Any] = {} if config.family == "mdlm" else {"optimizer": "adamw", "learning_rate": 1e-4}
    if arguments.adaptation_steps is not None:
        adaptation["steps"] = arguments.adaptation_steps
    wanted = {"rows": arguments.defence_rows, "steps": arguments.steps, "seed": arguments.seed}
    wanted |= {"strategy": arguments.strategy, "adaptation": adaptation}
    return Wishes(settings, _validated(SweepSettings, wanted, {"rows": "--defence-rows"}))


def _validated(kind: type[Settings], given: dict[str, Any], flags: Mapping[str, str]) -> Settings:
    """Settings from flags; a mistake is told by the flag's name."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        [first, *_] = error.errors()
        name = str(first["loc"][0]) if first["loc"] else ""
        raise ValueError(f"{flags.get(name, '--' + name.replace('_', '-'))}: {reasons(error)}") from error


def _require_column(arguments: Namespace) -> None:
    """Refuses a text column that the dump has not, or that is not to be kept."""
    kept, column = dump_settings(arguments).metadata, arguments.text_column
    if kept is not None and column not in kept:
        raise ValueError(f"--text-column {column}: is not among the columns of --metadata; add it there")
    for part in opened(arguments).parts():
        for block in part.blocks(1):
            names = [] if block.metadata is None else block.metadata.column_names
            if column not in names:
                raise ValueError(
                    f"--text-column {column}: the dump has no such column, but {', '.join(names) or 'none'}"
                )
            return
