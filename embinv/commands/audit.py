"""`embinv audit`: what a dump of vectors gives away, as a report. jobs/audit.py inverts on many workers first.

The dump is inverted as `embinv invert` does it, into OUT/recovered, and the report is made of what lies there. With
--recovered nothing is inverted: texts that jobs/invert.py wrote are looked at.
"""

import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embinv.audit.adaptation import AdaptationSettings
from embinv.audit.audit import HTML, JSON, MARKDOWN, write_report
from embinv.audit.redacting import finder_of
from embinv.audit.settings import AuditSettings
from embinv.audit.sweep import sweep
from embinv.audit.sweep_settings import SweepSettings
from embinv.checkpoint import CheckpointConfig, load_checkpoint
from embinv.commands.invert import inverted
from embinv.commands.inverting import STORES, add_dump_arguments, add_inverting_arguments, how_to_invert
from embinv.commands.progress import Progress
from embinv.commands.values import positive, whole
from embinv.data.held_out import remove_known
from embinv.data.labels import read_entities
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe, reasons, require_same_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.dump_inverter import DumpInverter
from embinv.encoders.base import open_encoder
from embinv.inverter import load_inverter

RECOVERED = "recovered"  # in OUT: the texts, window by window
DESCRIPTION = (
    "Say what a dump of vectors gives away: how many texts, whose data, which topics, and what would help.\n"
    "OUT/audit.html opens offline; audit.md and audit.json hold the same; recovered/ the texts themselves, in clear:\n"
    "keep it as you would keep the texts. Examples in the report are redacted unless you say --reveal.\n\n"
)


@dataclass(frozen=True)
class Recovered:
    """Texts that were recovered, and where from.

    Attributes:
        files: Parquet files, or folders of them.
        dump: the address of the dump.
        how: settings of the inversion that decide the texts, as far as they are known.
        recognition: whether the vectors look like the encoder's; None where nobody knows.
    """

    files: Sequence[Path]
    dump: str
    how: Mapping[str, Any]
    recognition: Mapping[str, Any] | None


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
    settings, out = report_settings(arguments), Path(arguments.out)
    measured = measured_defences_settings(arguments)
    if arguments.recovered:
        found = read_before([Path(each) for each in arguments.recovered])
    else:
        inverter = DumpInverter(how_to_invert(arguments))
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {out}: cannot be made ({error.strerror}: {error.filename})") from error
        texts, examined = inverted(arguments, inverter, out / RECOVERED)
        how = inverter.how.model_dump(mode="json") | {"strategy": inverter.strategy}
        del inverter
        found = Recovered(texts.files(), examined.dump.address, how, examined.chosen.recognition.to_dict())
    report(arguments, settings, measured, found, out)


def report_settings(arguments: Namespace) -> AuditSettings:
    """What the flags of `add_report_arguments` ask of the report.

    Raises:
        ValueError: one of them cannot be used.
    """
    if arguments.texts and not arguments.text_column:
        raise ValueError("--texts says what is labelled in the originals; name their column with --text-column too")
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
    flags = {"k": "--rare"}
    try:
        return AuditSettings.model_validate(given)
    except ValidationError as error:
        [first, *_] = error.errors()
        name = str(first["loc"][0]) if first["loc"] else ""
        flag = flags.get(name, f"--{name.replace('_', '-')}")
        raise ValueError(f"{flag}: {reasons(error)}") from error


def measured_defences_settings(arguments: Namespace) -> SweepSettings | None:
    """What --defences asks for; None without it.

    Raises:
        ValueError: its pairs are not given.
    """
    if not arguments.defences:
        return None
    if not arguments.data:
        raise ValueError("--defences needs --data DIR: pairs of this encoder, whose train split is the attacker's own")
    given: dict[str, Any] = {"rows": max(arguments.defence_rows, 11), "steps": arguments.steps, "seed": arguments.seed}
    if arguments.adaptation_steps is not None:
        given["adaptation"] = AdaptationSettings(steps=arguments.adaptation_steps)
    return SweepSettings.model_validate(given)


def read_before(files: Sequence[Path]) -> Recovered:
    """Texts of an earlier inversion, with what its `_stats.json` says of them."""
    from json import loads

    known: dict[str, Any] = {}
    for folder in files:
        stats = folder / "_stats.json"
        if stats.is_file():
            known = loads(stats.read_text(encoding="utf-8"))
    run = known.get("run", {})
    return Recovered(files, run.get("dump", ", ".join(map(str, files))), run, known.get("recognition"))


def report(
    arguments: Namespace, settings: AuditSettings, measured: SweepSettings | None, found: Recovered, out: Path
) -> dict[str, Any]:
    """Writes the report on recovered texts, and says what stands in it.

    Raises:
        ValueError: texts, labels or pairs cannot be read, or do not belong together.
    """
    from embinv import __version__

    progress, checkpoint = Progress(), Path(arguments.checkpoint)
    loaded = load_checkpoint(checkpoint)
    config = loaded.config
    defences = None
    if measured is not None:
        progress.line("measuring defences")
        defences = _sweep(arguments, settings, measured, config, lambda line: progress.line(f"  {line}"))
    origin: dict[str, Any] = {
        "dump": found.dump,
        "checkpoint": config.name,
        "encoder": config.pairs.encoder.model,
        **{name: found.how[name] for name in ("strategy", "steps", "seed") if name in found.how},
        "version": __version__,
    }
    if arguments.by:
        origin["by"] = arguments.by
    if arguments.reveal:
        origin["date"] = time.strftime("%Y-%m-%d")  # of the day on which somebody chose to see them
    made = write_report(
        found.files,
        out,
        settings,
        origin=origin,
        recognition=found.recognition,
        labels=Path(arguments.texts) if arguments.texts else None,
        tokenize=_tokenize(loaded.tokenizer),
        defences=defences,
        on_progress=lambda rows, total: progress.now(f"looked at {rows:,} of {total:,} texts"),
    )
    for line in made["summary"]:
        print(line)
    print(f"{out / HTML} (and {MARKDOWN}, {JSON})")
    return made


def _tokenize(tokenizer: TextTokenizer) -> Any:
    return lambda texts: tokenizer.encode(list(texts))


def _sweep(
    arguments: Namespace, settings: AuditSettings, measured: SweepSettings, config: CheckpointConfig, say: Any
) -> dict[str, Any]:
    """What defences leave and cost, on the test split of the pairs."""
    data = Path(arguments.data)
    require_same_recipe(read_recipe(data), config.pairs, data, f"the checkpoint {arguments.checkpoint}")
    known = read_pairs(data, "train")
    held_out = remove_known(read_pairs(data, "test"), known).pairs
    of_known, entities = (
        read_entities(Path(arguments.texts), pairs.ids.tolist(), pairs.texts) if arguments.texts else None
        for pairs in (known, held_out)
    )
    return sweep(
        load_inverter(arguments.checkpoint, arguments.device, arguments.batch_size, arguments.precision),
        load_checkpoint(arguments.checkpoint, arguments.device),
        known,
        held_out,
        measured,
        entities=entities,
        encoder=open_encoder(config.pairs.encoder, device=arguments.device),
        find_spans=finder_of([(known, of_known), (held_out, entities)], settings.languages),
        on_progress=say,
    )
