"""A leakage report on recovered texts, as `embinv audit` and jobs/audit.py ask for it.

What is known of the texts stands in the folder that the inversion left; figures on defences are kept beside the report.
"""

import json
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embinv.audit.audit import HTML, JSON, MARKDOWN, write_report
from embinv.audit.redacting import finder_of
from embinv.audit.settings import AuditSettings
from embinv.audit.sweep import sweep
from embinv.audit.sweep_settings import SweepSettings
from embinv.calibration import weights_digest
from embinv.checkpoint import CheckpointConfig, load_checkpoint
from embinv.commands.progress import Progress
from embinv.data.folders import whole_file
from embinv.data.held_out import remove_known
from embinv.data.labels import read_entities
from embinv.data.pairs import read_pairs
from embinv.data.tokenizer import TextTokenizer
from embinv.dump_texts import DumpRun, Texts
from embinv.encoders.trust import open_told_encoder
from embinv.inverter import load_inverter

DEFENCES = "defences.json"  # in OUT: what a sweep found


@dataclass(frozen=True)
class Recovered:
    """Texts that were recovered, and where from.

    Attributes:
        files: Parquet files, or folders of them.
        dump: the address of the dump.
        run: what decided the texts; None where nobody knows.
        recognition: whether the vectors look like the encoder's; None where nobody knows.
    """

    files: Sequence[Path]
    dump: str
    run: DumpRun | None
    recognition: Mapping[str, Any] | None


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a report; `sweep` is None without --defences."""

    settings: AuditSettings
    sweep: SweepSettings | None


def read_before(files: Sequence[Path], checkpoint: Path) -> Recovered:
    """Texts of an earlier inversion, with what is known of it.

    Raises:
        ValueError: they are not whole, or another checkpoint's.
    """
    run, recognition = None, None
    for folder in files:
        texts = Texts(folder)
        run = texts.run()
        if run is None:
            continue
        stats = texts.stats()
        if stats is None:
            raise ValueError(f"--recovered {folder}: is not whole; run the command that inverts the dump again")
        if run.weights != weights_digest(checkpoint):
            raise ValueError(f"--recovered {folder}: was made by other weights than those of --checkpoint {checkpoint}")
        recognition = stats["recognition"]
    return Recovered(files, ", ".join(map(str, files)) if run is None else run.dump, run, recognition)


def report(arguments: Namespace, wishes: Wishes, found: Recovered, out: Path) -> dict[str, Any]:
    """Writes the report on recovered texts, and says what stands in it.

    Raises:
        ValueError: texts, labels or pairs cannot be read, or do not belong together.
    """
    progress, loaded = Progress(), load_checkpoint(arguments.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    defences = None
    if wishes.sweep is not None:
        defences = _swept(arguments, wishes.settings, wishes.sweep, loaded.config, out, progress)
    origin: dict[str, Any] = {
        "dump": found.dump if "://" in found.dump else Path(found.dump).name,  # a path may name people
        "checkpoint": loaded.config.name,
        "encoder": loaded.config.pairs.encoder.model,
        **({} if found.run is None else _how(found.run)),
        "version": version("embinv"),
    }
    if arguments.by:
        origin["by"] = arguments.by
    if arguments.reveal:
        origin["date"] = time.strftime("%Y-%m-%d")  # of the day on which somebody chose to see them
    made = write_report(
        found.files,
        out,
        wishes.settings,
        origin=origin,
        recognition=found.recognition,
        labels=Path(arguments.texts) if arguments.texts else None,
        tokenize=_tokenize(loaded.tokenizer),
        defences=defences,
        on_progress=lambda rows, total: progress.now(f"looked at {rows:,} of {total:,} texts"),
    )
    progress.line(f"looked at {made['rows']:,} texts")
    for line in made["summary"]:
        print(line)
    print(f"{out / HTML} (and {MARKDOWN}, {JSON})")
    return made


def _tokenize(tokenizer: TextTokenizer) -> Callable[[Sequence[str]], Sequence[Sequence[int]]]:
    return lambda texts: tokenizer.encode(list(texts))


def _how(run: DumpRun) -> dict[str, Any]:
    """What a reader wants to know of how texts were recovered."""
    found: dict[str, Any] = {"strategy": run.strategy, "steps": run.steps, "seed": run.seed}
    usual = type(run.options)().model_dump(mode="json")
    changed = {name: value for name, value in run.options.model_dump(mode="json").items() if value != usual[name]}
    if changed:
        found["options"] = ", ".join(f"{name}={value}" for name, value in changed.items())
    if run.refine_steps:
        found |= {"refine_steps": run.refine_steps, "refine_beam": run.refine_beam}
        found["corrector"] = "trained" if run.corrector else "none"
    return found


def _swept(
    arguments: Namespace,
    settings: AuditSettings,
    wanted: SweepSettings,
    config: CheckpointConfig,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """What defences leave and cost, on the test split of the pairs; kept, since it takes long."""
    kept = out / DEFENCES
    made_with = {
        "weights": weights_digest(Path(arguments.checkpoint)),
        "data": str(Path(arguments.data).resolve()),
        "texts": arguments.texts,
        "languages": list(settings.languages),
        "settings": wanted.model_dump(mode="json"),
    }
    if kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before.get("made_with") == made_with:
            progress.line(f"defences were measured before, see {kept}")
            return before["found"]
    progress.line("measuring defences")
    found = _sweep(arguments, settings, wanted, config, lambda line: progress.line(f"  {line}"))
    with whole_file(kept) as partial:
        partial.write_text(json.dumps({"made_with": made_with, "found": found}, indent=1) + "\n", encoding="utf-8")
    return found


def _sweep(
    arguments: Namespace,
    settings: AuditSettings,
    wanted: SweepSettings,
    config: CheckpointConfig,
    say: Callable[[str], None],
) -> dict[str, Any]:
    data = Path(arguments.data)
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
        wanted,
        entities=entities,
        encoder=open_told_encoder(config.pairs.encoder, device=arguments.device),
        find_spans=finder_of([(known, of_known), (held_out, entities)], settings.languages),
        on_progress=say,
    )
