"""What `embinv invert`, `embinv audit` and their jobs share: flags of a dump and of its inversion, and the look at it.

A dump is read once before anything is inverted: every vector is checked, and whether they are the encoder's is said.
"""

import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from embinv.commands.progress import Progress
from embinv.commands.values import beam, positive, whole
from embinv.data.dumps.base import Dump
from embinv.data.dumps.inspection import Inspection, inspect
from embinv.data.dumps.opening import open_dump
from embinv.data.dumps.settings import DumpSettings
from embinv.decoding.options import DecodingOptions, Strategy, read_options
from embinv.dump_inversion import WINDOW_ROWS
from embinv.dump_inverter import HowToInvert
from embinv.models.reduced import Precision
from embinv.recognising import Candidate, checkpoints_below, rank, recognise_dump, require_recognised, table

STORES = """a dump is one of:
  .npy or .npz [N, D]; .parquet or a folder of it; .arrow, .feather; .jsonl (.gz, .zst); .csv; .faiss, .index
  folders of LanceDB, Chroma, Qdrant (local mode) and VDF
  postgresql://user@host/database with pgvector (--name TABLE; the password from PGPASSWORD or ~/.pgpass)"""


@dataclass(frozen=True)
class Examined:
    """A dump that was read once.

    Attributes:
        dump: as it was opened.
        settings: of its reader.
        inspection: what it holds.
        chosen: the inverter that was asked for, and how its encoder's vectors compare.
    """

    dump: Dump
    settings: DumpSettings
    inspection: Inspection
    chosen: Candidate


def add_dump_arguments(parser: ArgumentParser) -> None:
    """Adds what a dump is read with, but for its address."""
    parser.add_argument(
        "--column", metavar="NAME", help="its vectors (default: embedding, or the only column that holds vectors)"
    )
    parser.add_argument("--id-column", metavar="NAME", help="its ids (default: id, or row numbers)")
    parser.add_argument("--name", metavar="NAME", help="table, collection, index or array, where there are several")
    parser.add_argument(
        "--metadata",
        metavar="A,B",
        help="other columns to keep beside the texts, as JSON in column metadata (default: all; '' for none)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on where vectors are NaN, infinite or zero: those get no text"
    )
    parser.add_argument(
        "--force", action="store_true", help="invert vectors that do not look like this encoder's all the same"
    )
    parser.add_argument(
        "--inverters",
        metavar="DIR",
        help="where other checkpoints lie, to say which would fit better (default: beside the checkpoint)",
    )


def add_inverting_arguments(parser: ArgumentParser) -> None:
    """Adds how vectors are inverted."""
    parser.add_argument("--steps", type=int, default=8, help="denoising passes (default 8)")
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help=f"decoder: {', '.join(get_args(Strategy))} (default: confidence, or greedy of a T5)",
    )
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"how the decoder works: {', '.join(DecodingOptions.model_fields)}; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="for decoders that sample (default 0)")
    parser.add_argument(
        "--cosine", action="store_true", help="encode what was recovered, and say how near it is to its vector"
    )
    parser.add_argument(
        "--refine-steps",
        type=whole,
        default=0,
        metavar="N",
        help="bring texts closer with the encoder at hand: write parts anew and keep what comes nearest to the vector, "
        "so many times (default 0: the encoder is not read)",
    )
    parser.add_argument(
        "--refine-beam", type=beam, default=4, metavar="B", help="texts held, and proposals for each (default 4)"
    )
    parser.add_argument(
        "--corrector",
        metavar="DIR",
        help="checkpoint of a corrector, which was trained to see what is wrong with a text by the text's own vector; "
        "without it, the inverter writes parts anew",
    )
    parser.add_argument("--batch-size", type=int, default=128, help="vectors decoded together (default 128)")
    parser.add_argument(
        "--window-rows",
        type=positive,
        default=WINDOW_ROWS,
        metavar="N",
        help=f"vectors that are written together, and done again after a kill (default {WINDOW_ROWS:,})",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=get_args(Precision),
        help="what matrices are multiplied in; auto (default): bfloat16, which rounds and is about twice as fast, "
        "where the device multiplies in it, else float32",
    )


def how_to_invert(arguments: Namespace) -> HowToInvert:
    """What the flags of `add_inverting_arguments` ask for.

    Raises:
        ValueError: an option cannot be used.
    """
    return HowToInvert(
        checkpoint=str(arguments.checkpoint),
        strategy=arguments.strategy,
        steps=arguments.steps,
        options=read_options(arguments.options),
        seed=arguments.seed,
        device=arguments.device,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
        cosine=arguments.cosine,
        refine_steps=arguments.refine_steps,
        refine_beam=arguments.refine_beam,
        corrector=arguments.corrector,
    )


def dump_settings(arguments: Namespace) -> DumpSettings:
    """What the flags of `add_dump_arguments` say about the reader."""
    kept = None if arguments.metadata is None else [name for name in arguments.metadata.split(",") if name]
    return DumpSettings(column=arguments.column, id_column=arguments.id_column, name=arguments.name, metadata=kept)


def settings_given(arguments: Namespace) -> dict[str, Any]:
    """All flags with their values, defaults included, as JSON has them."""
    plain = (str, int, float, bool, list, tuple, type(None))
    return {name: value for name, value in vars(arguments).items() if isinstance(value, plain)}


def opened(arguments: Namespace) -> Dump:
    """The dump of --vectors, which is not read yet.

    Raises:
        ValueError: there is no such dump, its address holds a password, or a setting means nothing for its kind.
    """
    return open_dump(arguments.vectors, dump_settings(arguments))


def require_apart(out: Path, arguments: Namespace) -> None:
    """Refuses an output in the place of the dump, or inside it.

    Raises:
        ValueError: it would replace what is to be read, or be read itself.
    """
    if "://" in arguments.vectors:
        return
    dump, own = Path(arguments.vectors).expanduser().resolve(), out.expanduser().resolve()
    if own == dump or dump in own.parents:
        raise ValueError(f"--out {out}: is the dump of --vectors, or inside it; choose another place")


def examine(arguments: Namespace) -> Examined:
    """Opens the dump of --vectors and reads it once, with progress on stderr; says whose vectors they look like.

    Raises:
        ValueError: it cannot be read, holds vectors that cannot be inverted, or those of another space.
    """
    dump, settings, checkpoint = opened(arguments), dump_settings(arguments), Path(arguments.checkpoint)
    progress, began = Progress(), time.perf_counter()
    inspection = inspect(dump, arguments.window_rows, lambda rows: progress.now(f"read {rows:,} vectors"))
    seconds = time.perf_counter() - began
    speed = inspection.rows / seconds
    progress.line(f"read {inspection.rows:,} vectors of {inspection.dim} dimensions ({speed:,.0f}/s)")
    if not arguments.skip_bad:
        inspection.require_good()
    chosen = recognise_dump(inspection, checkpoint)
    if chosen.recognition.refused:
        searched = Path(arguments.inverters) if arguments.inverters else checkpoint.resolve().parent.parent
        others = rank(inspection, checkpoints_below(searched))
        if others:
            progress.line(f"inverters at hand, in {searched}:\n{table(others)}")
        if not arguments.force or inspection.dim != chosen.recognition.expected_dim:
            require_recognised(chosen, others, dump.address)
    progress.line(f"{chosen.encoder}: {chosen.recognition.verdict}; {chosen.recognition.reason}")
    return Examined(dump, settings, inspection, chosen)
