"""`embinv align`: vectors of an unknown encoder, through a map fitted on few known pairs, to texts.

Options in, lines out. What is measured is `embinv.aligning`'s, what is said of it `align_report`'s, and what is read
and written `align_files`'s.
"""

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embinv.aligning import COUNTS, HELD_OUT, KnownPairs, known_pairs, measure_alignment
from embinv.commands import align_report
from embinv.commands.align_files import invert_dump, read_known
from embinv.commands.inverting import settings_given
from embinv.commands.progress import Progress
from embinv.commands.values import positive
from embinv.data.dumps.base import Dump
from embinv.data.dumps.opening import open_dump
from embinv.data.dumps.settings import DumpSettings
from embinv.data.kept_maps import KeptMap, read_map, write_map
from embinv.encoders.trust import open_told_encoder
from embinv.inverter import TextInverter, load_inverter
from embinv.provenance.sittings import PROVENANCE_FILE, begin_sitting, end_sitting
from embinv.spaces.choosing import FEWEST, choose_map
from embinv.spaces.linear import LinearMap

JOB = "embinv align"
_OF_KNOWN = {"column": "--column", "name": "--known-name"}
_OF_VECTORS = {"column": "--vectors-column", "id_column": "--id-column", "name": "--name"}
"""Fields of `DumpSettings`, as the flags of this command call them."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `align` to the commands of `embinv`."""
    numbers = ", ".join(f"{count:,}" for count in COUNTS[:-1]) + f" and {COUNTS[-1]:,}"
    own = commands.add_parser(
        "align",
        help="vectors of another encoder, by a map from few known texts",
        description="Measure what vectors of an unknown encoder give away to somebody who knows the texts of some of "
        "them, and invert others: the known texts are encoded with the checkpoint's encoder, a linear map between the "
        "two spaces is fitted, and vectors are inverted through it.",
        epilog="examples:\n"
        "  embinv align --checkpoint runs/demo/checkpoint --known known.parquet --report runs/align\n"
        "  embinv align --checkpoint runs/demo/checkpoint --known known.jsonl --map runs/map --vectors dump.npy "
        "--out recovered.parquet\n"
        "  embinv align --checkpoint runs/demo/checkpoint --map runs/map --vectors more.npy --out more.parquet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that jobs/train.py made")
    own.add_argument(
        "--known",
        metavar="FILE",
        help="texts with their vectors in the unknown space: .parquet, .jsonl, .csv or another store",
    )
    own.add_argument("--text-column", default="text", metavar="NAME", help="of --known (default text)")
    own.add_argument(
        "--column", metavar="NAME", help="vectors of --known (default embedding, else the only one that holds vectors)"
    )
    own.add_argument(
        "--known-name",
        metavar="NAME",
        help="table, collection or array of --known, where the store holds several",
    )
    own.add_argument("--report", metavar="DIR", help="folder for align.json, align.md and align.png")
    own.add_argument(
        "--known-pairs",
        type=_counts,
        metavar="K,K,...",
        help=f"numbers of known pairs to measure at (default {numbers}, as far as there are, and all)",
    )
    own.add_argument(
        "--held-out",
        type=positive,
        metavar="N",
        help=f"known pairs that are measured on and enter no fit (default {HELD_OUT}, or a fifth if that is less)",
    )
    own.add_argument(
        "--map",
        metavar="DIR",
        help="keep the map that is fitted on all known pairs; without --known, take the one that is kept there",
    )
    own.add_argument(
        "--vectors",
        metavar="FILE",
        help="dump of the unknown space to invert through the map: a file, folder or URL of a store",
    )
    own.add_argument("--vectors-column", metavar="NAME", help="of --vectors (default likewise)")
    own.add_argument("--id-column", metavar="NAME", help="ids of --vectors (default id, else rows are numbered)")
    own.add_argument("--name", help="table, collection or array of --vectors, where the store holds several")
    own.add_argument(
        "--out", metavar="FILE", help=".parquet to write: id, text, confidence; text is null where a vector is unusable"
    )
    own.add_argument("--steps", type=positive, default=8, help="denoising passes (default 8)")
    own.add_argument("--seed", type=int, default=0, help="of what is held out, of folds and of sampling (default 0)")
    own.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    own.set_defaults(run=align)


def align(arguments: argparse.Namespace) -> None:
    """Measures the leakage of a space, keeps the map, and inverts a dump through it.

    Raises:
        ValueError: the checkpoint, a file or an option cannot be used.
    """
    _require_sense(arguments)
    known, dump = _open_known(arguments), _open_vectors(arguments)
    made = _provenance_of(arguments)
    for path in made:
        path.unlink(missing_ok=True)  # of what is replaced
        begin_sitting(path, JOB, settings_given(arguments))
    _align(known, dump, arguments)
    for path in made:
        end_sitting(path, JOB)


def _provenance_of(arguments: argparse.Namespace) -> list[Path]:
    """The files that say how each output was made."""
    folders = [arguments.report] + ([arguments.map] if arguments.known is not None else [])
    found = [Path(folder) / PROVENANCE_FILE for folder in folders if folder is not None]
    return found if arguments.out is None else [*found, Path(arguments.out).with_suffix(f".{PROVENANCE_FILE}")]


def _align(known: Dump | None, dump: Dump | None, arguments: argparse.Namespace) -> None:
    progress, inverter = Progress(), load_inverter(arguments.checkpoint, arguments.device)
    spec = inverter.config.pairs.encoder
    if known is None:
        linear, kept = read_map(Path(arguments.map), spec)
    else:
        with _naming("--known", _OF_KNOWN):
            texts, vectors = read_known(known, arguments.text_column)
        pairs = known_pairs(texts, vectors, open_told_encoder(spec, arguments.device), inverter.tokenizer, progress.now)
        progress.line(f"encoded {len(pairs):,} known texts")
        _measure(inverter, pairs, known.address, arguments, progress)
        if dump is None and arguments.map is None:
            return
        chosen = choose_map(pairs.unknown, pairs.own, arguments.seed)
        linear, kept = chosen.map, KeptMap(kind=chosen.name, known_pairs=len(pairs), encoder=spec)
        if arguments.map is not None:
            write_map(Path(arguments.map), linear, kept)
    where = "" if arguments.map is None else f" ({arguments.map})"
    print(f"map: {kept.kind}, fitted on {kept.known_pairs:,} known pairs{where}")
    if dump is not None:
        _invert(inverter, linear, dump, arguments, progress)


def _require_sense(arguments: argparse.Namespace) -> None:
    """Refuses options that say nothing together.

    Raises:
        ValueError: the message names the option that is missing or too many.
    """
    if arguments.known is None:
        if arguments.map is None:
            raise ValueError("--known FILE is missing: texts with their vectors in the unknown space; or give a --map")
        if arguments.vectors is None:
            raise ValueError("--map without --known is there to invert --vectors FILE; give them")
        for flag in ("report", "known_pairs", "held_out"):
            if getattr(arguments, flag) is not None:
                raise ValueError(f"--{flag.replace('_', '-')} measures on known pairs; give --known FILE with it")
    if (arguments.vectors is None) != (arguments.out is None):
        raise ValueError("--vectors FILE and --out FILE.parquet belong together; give both or neither")
    if arguments.out is not None:
        out = Path(arguments.out)
        if out.suffix != ".parquet" or out.is_dir():
            raise ValueError(f"--out {out}: give a file that ends in .parquet")
        _make_folder("--out", out.parent)
    for flag, folder in (("--report", arguments.report), ("--map", arguments.map)):
        if folder is not None and arguments.known is not None:
            _make_folder(flag, Path(folder))


def _make_folder(flag: str, folder: Path) -> None:
    """Makes a folder that will be written to, before hours are spent on what shall lie there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag}: {error.filename} cannot be made ({error.strerror}); give another folder") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{flag}: {folder} cannot be written to; give another folder")


def _open_known(arguments: argparse.Namespace) -> Dump | None:
    """The known pairs, with all their columns, so that a message can name them; nothing is read yet."""
    if arguments.known is None:
        return None
    with _naming("--known", _OF_KNOWN):
        dump = open_dump(arguments.known, DumpSettings(column=arguments.column, name=arguments.known_name))
        dump.parts()
    return dump


def _open_vectors(arguments: argparse.Namespace) -> Dump | None:
    """The dump to invert, opened so that it is refused before hours are spent on the known pairs."""
    if arguments.vectors is None:
        return None
    settings = DumpSettings(
        column=arguments.vectors_column, id_column=arguments.id_column, name=arguments.name, metadata=[]
    )
    with _naming("--vectors", _OF_VECTORS):
        dump = open_dump(arguments.vectors, settings)
        dump.parts()
    return dump


@contextmanager
def _naming(flag: str, settings: Mapping[str, str]) -> Iterator[None]:
    """Lets what readers of dumps say of --vectors and of their settings be said of the flags of this command.

    Args:
        flag: that stands for --vectors.
        settings: flags that stand for settings, which messages name at their ends: `... with column`, `mend name`.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        if not said.startswith("--vectors "):
            raise
        said = flag + said.removeprefix("--vectors")
        for name, own in settings.items():
            said = re.sub(rf"\b(with|mend|leave) {name}(?=$| out$|, or none )", rf"\1 {own}", said)
            said = re.sub(rf": {name} is (?=.* means nothing for .*; leave it out$)", f": {own} is ", said)
        raise ValueError(said) from error


def _measure(
    inverter: TextInverter, pairs: KnownPairs, address: str, arguments: argparse.Namespace, progress: Progress
) -> None:
    """Measures, prints the table, and writes the report if one is asked for."""
    alignment = measure_alignment(
        inverter, pairs, arguments.known_pairs, arguments.held_out, arguments.steps, arguments.seed, progress.line
    )
    facts = {
        "name": inverter.config.name,
        "encoder": inverter.config.pairs.encoder.model_dump(mode="json"),
        "known": address,
        "longest": inverter.config.pairs.seq_len - 1,
        "steps": arguments.steps,
        "seed": arguments.seed,
    }
    report = align_report.report_of(alignment, pairs, facts)
    rows = align_report.table(report)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    copies = f", without {alignment.copies:,} that known texts nearly are" if alignment.copies else ""
    print(f"{report['held_out']:,} held-out texts of {report['usable_pairs']:,} usable pairs{copies}")
    if arguments.report is not None:
        align_report.write_report(Path(arguments.report), report)
        print(f"report in {arguments.report}")


def _invert(
    inverter: TextInverter, linear: LinearMap, dump: Dump, arguments: argparse.Namespace, progress: Progress
) -> None:
    counts = [part.rows for part in dump.parts()]
    total = "" if None in counts else f" of {sum(count or 0 for count in counts):,}"
    done, unusable = invert_dump(
        inverter,
        linear,
        dump,
        Path(arguments.out),
        arguments.steps,
        arguments.seed,
        lambda done: progress.now(f"inverted {done:,}{total}"),
    )
    progress.line(f"inverted {done:,}{total}")
    without = f"; {unusable:,} of them null, where a vector is zero or not finite" if unusable else ""
    print(f"{done:,} texts in {arguments.out}{without}")


def _counts(text: str) -> tuple[int, ...]:
    found = tuple(positive(each.strip()) for each in text.split(","))
    if min(found) < FEWEST:
        raise argparse.ArgumentTypeError(f"{min(found)} is too few pairs to choose a map on; give {FEWEST} or more")
    return found
