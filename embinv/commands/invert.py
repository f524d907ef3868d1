"""`embinv invert`: a dump of vectors to texts on this machine, or what one text's vector gives away.

The texts are written window by window into a folder beside OUT, so that the same command goes on where a kill stopped
it, and joined at the end. jobs/invert.py does the same on many workers.
"""

import shutil
import time
from argparse import Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from embinv.commands.inverting import (
    STORES,
    add_dump_arguments,
    add_inverting_arguments,
    examine,
    how_to_invert,
    require_apart,
    settings_given,
)
from embinv.commands.progress import Progress
from embinv.data.dumps.windows import Window
from embinv.data.sole_writer import sole_writer
from embinv.dump_inversion import invert_here
from embinv.dump_inverter import DumpInverter
from embinv.dump_texts import Texts, join
from embinv.encoders.base import Encoder
from embinv.encoders.trust import open_told_encoder
from embinv.provenance.sittings import PROVENANCE_FILE, begin_sitting, end_sitting

SHOWN = 5
JOB = "embinv invert"


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "invert",
        help="vectors to texts",
        description="Invert a dump of vectors, or show what one text's vector gives away.\n\n"
        "Stopped or killed, the same command goes on where it was.\n\n" + STORES,
        epilog="examples:\n"
        "  embinv invert --checkpoint runs/demo/checkpoint --vectors dump.npy --out recovered.parquet\n"
        "  embinv invert --checkpoint runs/demo/checkpoint --vectors postgresql://me@db/prod --name a --out r.parquet\n"
        '  embinv invert --checkpoint runs/demo/checkpoint --text "Dr. Weber moved the appointment to May 4."',
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that jobs/train.py made")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--vectors", metavar="DUMP", help="a file, a folder or a database, see above")
    source.add_argument("--text", help="encode this text, then recover it from its vector alone")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=".parquet to write: id (row number where the dump has none), text, confidence, the probability that 90%% "
        "of it is right, null until jobs/evaluate.py has calibrated this way of decoding; with --cosine or "
        "--refine-steps cosine and encoder_calls; metadata",
    )
    add_dump_arguments(parser)
    add_inverting_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="forget what an earlier run of other settings left")
    parser.set_defaults(run=invert)


def invert(arguments: Namespace) -> None:
    """Inverts a dump, or the vector of one text.

    Raises:
        ValueError: the checkpoint, the dump or an option cannot be used.
    """
    if arguments.text is not None:
        _invert_text(arguments)
        return
    if arguments.out is None:
        raise ValueError("--vectors needs --out FILE.parquet to write the texts to")
    out = Path(arguments.out)
    if out.suffix != ".parquet" or out.is_dir():
        raise ValueError(f"--out {out}: give a file that ends in .parquet")
    require_apart(out, arguments)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: its folder cannot be made ({error.strerror}: {error.filename})") from error
    inverter = DumpInverter(how_to_invert(arguments))
    with sole_writer(out):
        texts = inverted(arguments, inverter, out.with_name(f".{out.name}.progress"), JOB)
        rows = join(texts, out)
        shutil.copyfile(texts.out / PROVENANCE_FILE, out.with_suffix(f".{PROVENANCE_FILE}"))
        texts.delete()
    _show(out)
    print(f"{rows:,} texts in {out}")


def inverted(arguments: Namespace, inverter: DumpInverter, folder: Path, job: str) -> Texts:
    """The texts of the dump of --vectors, window by window in a folder, all of them.

    It goes on where an earlier run stopped. `job` is what the folder's provenance says of who made them.

    Raises:
        ValueError: see `invert`.
    """
    examined, texts, progress = examine(arguments), Texts(folder), Progress()
    inspection, window_rows = examined.inspection, arguments.window_rows
    run = inverter.run(examined.dump.address, examined.settings, window_rows)
    wanted, changed = texts.begin(run, inspection, arguments.overwrite)
    if wanted or not (folder / PROVENANCE_FILE).exists():
        begin_sitting(folder / PROVENANCE_FILE, job, settings_given(arguments))
    total = inspection.rows
    done = total - sum(window.rows for window in wanted)
    if changed:
        progress.line(f"{changed:,} windows are of an earlier state of the dump, and are gone")
    if done:
        progress.line(f"going on: {done:,} of {total:,} vectors were inverted before")

    def tell_done(window: Window) -> None:
        nonlocal done
        done += window.rows
        progress.now(f"inverted {done:,} of {total:,}")

    inverter.on_rows = lambda rows: progress.now(f"inverted {done + rows:,} of {total:,}")
    began = time.perf_counter()
    invert_here(examined.dump, wanted, texts, inverter, window_rows, tell_done)
    progress.line(f"inverted {done:,} of {total:,}")
    texts.finish(inspection, examined.chosen.recognition.to_dict(), time.perf_counter() - began)
    end_sitting(folder / PROVENANCE_FILE, job)
    return texts


def _show(out: Path) -> None:
    """Prints the first texts."""
    first = next(pq.ParquetFile(out).iter_batches(batch_size=SHOWN, columns=["text", "confidence", "cosine"]))
    for row in first.to_pylist():
        sure = row["confidence"] if row["cosine"] is None else row["cosine"]
        print("no text: this vector cannot be inverted" if row["text"] is None else f"{sure:.2f}  {row['text']}")


def _invert_text(arguments: Namespace) -> None:
    """Encodes a text, forgets it, inverts the vector and says how near the result is."""
    if not arguments.text.strip():
        raise ValueError("--text is empty; give a text to encode and to recover")
    inverter = DumpInverter(how_to_invert(arguments))
    encoder: Encoder = inverter.encoder or open_told_encoder(
        inverter.inverter.config.pairs.encoder, device=arguments.device
    )
    vector = encoder.encode([arguments.text])
    [inversion] = inverter(vector)
    again = encoder.encode([inversion.text or " "])
    cosine = float((vector * again).sum() / (np.linalg.norm(vector) * np.linalg.norm(again)))
    print(f"original   {arguments.text}")
    print(f"recovered  {inversion.text}")
    if inversion.probability is not None:
        print(f"at least 90% of it is right with probability {inversion.probability:.2f}")
    print(f"confidence {inversion.confidence:.2f}, cosine of the two vectors {cosine:.3f}")
