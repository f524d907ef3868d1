"""a dump of vectors + an inverter -> texts, on many workers: a Parquet file for each window of the dump.

A file appears whole or not at all and says in its metadata which rows it is of, so that a job that was killed goes on
where it was, no id lost and none twice (embinv/dump_texts.py). `embinv invert` does the same in one process.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from embinv.commands.inverting import (
    STORES,
    add_dump_arguments,
    add_inverting_arguments,
    examine,
    how_to_invert,
    opened,
    require_apart,
    settings_given,
)
from embinv.commands.values import positive
from embinv.data.object_folders import is_object_url
from embinv.data.sole_writer import sole_writer
from embinv.dump_inverter import DumpInverter
from embinv.dump_texts import Texts
from jobs.arguments import add_accelerator, job_parser, require_gpu, run_job
from jobs.failures import told_plainly
from jobs.invert_pipeline import run_pipeline
from jobs.progress import RowCounter, Watch, duration
from jobs.provenance import end_provenance, keep_provenance
from jobs.session import ray_session
from jobs.staging import WRITE_BACK_S, place, shown, staged


def invert_dump(arguments: Namespace, out: Path) -> dict[str, Any]:
    """Runs the job; returns the statistics that it also writes.

    Args:
        arguments: of the command line.
        out: folder of the texts.

    Raises:
        ValueError: checkpoint, dump or option cannot be used, the vectors are another encoder's, the output folder
            holds something else, or the disk is full.
    """
    how = how_to_invert(arguments)
    texts = Texts(out)
    require_apart(out, arguments)
    with told_plainly(out), sole_writer(out):
        # Before the dump is read, so that a mistake is told at once; a GPU is the workers' matter.
        inverter = DumpInverter(how.model_copy(update={"device": "cpu"}))
        examined = examine(arguments)
        inspection = examined.inspection
        address = examined.dump.address if "://" in arguments.vectors else shown(Path(examined.dump.address))
        run = inverter.run(address, examined.settings, arguments.window_rows)
        del inverter
        wanted, changed = texts.begin(run, inspection, arguments.overwrite)
        if changed:
            print(f"{changed:,} windows are of an earlier state of the dump, and are gone", flush=True)
        stats = texts.stats()
        if stats is not None:
            print(f"{out}: all done before, {stats['rows']:,} texts; --overwrite makes them anew")
            return stats
        began = time.perf_counter()
        if wanted:
            read = [Path(arguments.checkpoint), *dump_folders(arguments)]
            if arguments.corrector is not None:
                read.append(Path(arguments.corrector))
            with (
                ray_session(out, inputs=read),
                Watch(RowCounter(out), inspection.rows, "inverted", lambda seconds: None),
            ):
                keep_provenance(out, "invert", settings_given(arguments))
                run_pipeline(
                    examined.dump,
                    wanted,
                    arguments.window_rows,
                    inspection.dim,
                    how,
                    out,
                    arguments.workers,
                    arguments.accelerator,
                )
        end_provenance(out, "invert")
        return texts.finish(inspection, examined.chosen.recognition.to_dict(), time.perf_counter() - began)


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what a dump's inversion on many workers takes."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="inverter that jobs/train.py made")
    parser.add_argument("--vectors", required=True, metavar="DUMP", help="a file, a folder or a database, see above")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to go on with")
    add_dump_arguments(parser)
    add_inverting_arguments(parser)
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="inverters (default: one a core up to four a node, or one a GPU)"
    )
    add_accelerator(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete the texts in OUT and make them anew")


def resolve(arguments: Namespace) -> None:
    """Makes the paths of what is read absolute, since workers stand elsewhere; what lies in an object store is a copy.

    Raises:
        ValueError: one of them cannot be looked at.
    """
    require_gpu(arguments)
    arguments.checkpoint = str(place(arguments.checkpoint, "--checkpoint"))
    if arguments.corrector is not None:
        arguments.corrector = str(place(arguments.corrector, "--corrector"))
    if "://" not in arguments.vectors:
        arguments.vectors = str(Path(arguments.vectors).expanduser().resolve())
    elif is_object_url(arguments.vectors):
        arguments.vectors = str(place(arguments.vectors, "--vectors"))


def dump_folders(arguments: Namespace) -> list[Path]:
    """The dump if it is a file or a folder, and not a database."""
    return [] if "://" in arguments.vectors else [Path(arguments.vectors)]


def at_hand(arguments: Namespace, out: Path) -> AbstractContextManager[None]:
    """Has copies of what is read and written at hand, where those lie in an object store; see `staged`."""
    corrector = None if arguments.corrector is None else Path(arguments.corrector)
    read = [Path(arguments.checkpoint), corrector, *dump_folders(arguments)]
    return staged(out, inputs=read, every=WRITE_BACK_S)  # each window is a file, whole or not there


def summary(stats: dict[str, Any], out: str) -> str:
    """What became of all vectors, as lines to read."""
    speed = f" in {duration(stats['seconds'])}" if stats["seconds"] else ""
    lines = [f"{stats['rows'] - stats['without_text']:,} texts in {out}{speed}"]
    if stats["without_text"]:
        lines.append(f"{stats['without_text']:,} vectors cannot be inverted, and have no text")
    if stats["calibrated"]:
        share = stats["expected_nearly_right"] / stats["calibrated"]
        lines.append(
            f"at least 90% of a text is right in about {stats['expected_nearly_right']:,.0f} of them ({share:.1%})"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Invert a dump of vectors of any size: OUT/window-*.parquet of id, text, confidence, the calibrated\n"
        "probability that 90% of a text is right, with --cosine or --refine-steps its cosine, and the store's other\n"
        "columns.\n\n"
        "The dump is read once before: every vector is checked, and whether they look like those of the\n"
        "checkpoint's encoder. Those of another one are refused, with figures and the inverter at hand that fits.\n\n"
        "Stopped or crashed, the same command goes on where it was; finished, it does nothing. If the dump changed in\n"
        "the meantime, what changed is inverted anew.\n\n" + STORES,
        "exit codes: 0 done, 1 the run went wrong, 2 a mistake that the message tells how to mend, 130 Ctrl-C\n\n"
        "examples:\n"
        "  python jobs/invert.py --checkpoint runs/my/checkpoint --vectors dump/ --out runs/my/texts-of-dump\n"
        "  ... --device cuda --workers 4       four inverters on GPUs\n"
        "  ... --cosine                        encode each text again, and say how near it is",
    )
    add_arguments(parser)
    given = parser.parse_args(argv)
    resolve(given)
    out = place(given.out)
    with at_hand(given, out):
        checkpoint = shown(Path(given.checkpoint))
        print(f"# invert: checkpoint={checkpoint}, vectors={opened(given).address}, out={shown(out)}", flush=True)
        stats = invert_dump(given, out)
    print(summary(stats, shown(out)))
    audit = f"--checkpoint {checkpoint} --recovered {shown(out)} --out {shown(out.with_name('audit'))}"
    print(f"next: embinv audit {audit}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
