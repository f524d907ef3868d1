"""a dump of vectors + an inverter -> texts, on many workers: a Parquet file for each window of the dump.

A file appears whole or not at all and says in its metadata which rows it is of, so that a job that was killed goes on
where it was, no id lost and none twice (embinv/dump_inversion.py). `embinv invert` does the same in one process.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from embinv.commands.inverting import (
    STORES,
    Examined,
    add_dump_arguments,
    add_inverting_arguments,
    examine,
    how_to_invert,
)
from embinv.commands.values import positive
from embinv.dump_inversion import RUN_FILE, Texts, todo
from embinv.dump_inverter import DumpInverter
from jobs.arguments import job_parser, output_folder, run_job, write_json
from jobs.failures import told_plainly
from jobs.invert_pipeline import run_pipeline
from jobs.outputs import STATS_FILE, SUCCESS_FILE, delete_ours, require_ours, sole_writer
from jobs.progress import RowCounter, Watch, duration
from jobs.session import ray_session


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
    with told_plainly(out), sole_writer(out):
        if arguments.overwrite:
            require_ours(out, is_ours)
        inverter = DumpInverter(how)  # before the dump is read: a mistake is told at once
        strategy, name = inverter.strategy, inverter.inverter.config.name
        del inverter
        examined = examine(arguments)
        if arguments.overwrite:
            delete_ours(out, is_ours)
        run = how.run(examined.dump.address, examined.settings, strategy, arguments.window_rows)
        run.require_same(out)
        texts = Texts(out)
        changed = texts.keep_only(examined.inspection.windows)
        if changed:
            print(f"{changed:,} windows are of an earlier state of the dump, and are inverted anew", flush=True)
        wanted = todo(examined.inspection, texts)
        if not wanted and (out / SUCCESS_FILE).is_file():
            print(f"{out}: all done before, {examined.inspection.rows:,} texts; --overwrite makes them anew")
            return _stats(texts, examined, name, 0.0)
        (out / SUCCESS_FILE).unlink(missing_ok=True)
        began = time.perf_counter()
        if wanted:
            with (
                ray_session(),
                Watch(RowCounter(out), examined.inspection.rows, "inverted", lambda seconds: None),
            ):
                run_pipeline(
                    arguments.vectors,
                    examined.settings,
                    wanted,
                    arguments.window_rows,
                    examined.inspection.dim,
                    how,
                    out,
                    arguments.workers,
                )
        missing = todo(examined.inspection, texts)
        assert not missing, f"{len(missing)} windows were not written"
        stats = _stats(texts, examined, name, time.perf_counter() - began) | {"run": run.model_dump(mode="json")}
        write_json(out / STATS_FILE, stats)
        (out / SUCCESS_FILE).touch()
        return stats


def _stats(texts: Texts, examined: Examined, name: str, seconds: float) -> dict[str, Any]:
    """What came out; a file at a time."""
    rows = without = calibrated = 0
    expected = 0.0
    for file in texts.files():
        table = pq.ParquetFile(file).read(columns=["text", "probability"])
        rows, without = rows + len(table), without + table["text"].null_count
        calibrated += len(table) - table["probability"].null_count
        expected += pc.sum(table["probability"]).as_py() or 0.0
    assert rows == examined.inspection.rows, f"{rows} texts of {examined.inspection.rows} vectors"
    return {
        "rows": rows,
        "without_text": without,
        "expected_nearly_right": round(expected, 2) if calibrated else None,
        "inverter": name,
        "recognition": examined.chosen.recognition.to_dict(),
        "seconds": round(seconds, 2),
    }


def is_ours(path: Path) -> bool:
    """Whether something in the output folder is this job's."""
    return path.name == RUN_FILE or path.name.removeprefix(".").startswith("window-")


def summary(stats: dict[str, Any], out: Path) -> str:
    """What became of all vectors, as lines to read."""
    speed = f" in {duration(stats['seconds'])}" if stats["seconds"] else ""
    lines = [f"{stats['rows'] - stats['without_text']:,} texts in {out}{speed}"]
    if stats["without_text"]:
        lines.append(f"{stats['without_text']:,} vectors cannot be inverted, and have no text")
    if stats["expected_nearly_right"] is not None:
        share = stats["expected_nearly_right"] / max(stats["rows"], 1)
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
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="inverter that jobs/train.py made")
    parser.add_argument("--vectors", required=True, metavar="DUMP", help="a file, a folder or a database, see above")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to go on with")
    add_dump_arguments(parser)
    add_inverting_arguments(parser)
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="inverters (default: one a core up to four a node, or one a GPU)"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the texts in --out and make them anew")
    given = parser.parse_args(argv)
    given.checkpoint = str(output_folder(given.checkpoint, "--checkpoint"))
    out = output_folder(given.out)
    if "://" not in given.vectors:
        given.vectors = str(Path(given.vectors).expanduser().resolve())  # workers stand elsewhere
    print(f"# invert: checkpoint={given.checkpoint}, vectors={given.vectors}, out={out}", flush=True)
    stats = invert_dump(given, out)
    print(summary(stats, out))
    print(f"next: embinv audit --checkpoint {given.checkpoint} --recovered {out} --out {out.parent / 'audit'}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
