"""The `embinv` command: `invert` vectors, `compare` reports, `import` vec2text's inverters, `demo` the whole way."""

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embinv.correcting import refined
from embinv.data.folders import whole_file
from embinv.data.vectors import read_vectors
from embinv.decoding.options import DecodingOptions, Strategy, read_options
from embinv.encoders.base import Encoder, open_encoder
from embinv.evaluation import scores
from embinv.evaluation.report import LABELS, shown
from embinv.inversion import Inversion
from embinv.inverter import TextInverter, load_inverter
from embinv.models.reduced import Precision
from embinv.trained_corrector import TrainedCorrector, load_corrector


def invert(arguments: argparse.Namespace) -> None:
    """Inverts a file of vectors, or the vector of one text.

    Raises:
        ValueError: the checkpoint, the vectors or an option cannot be used.
    """
    options = read_options(arguments.options)
    inverter = load_inverter(arguments.checkpoint, arguments.device, arguments.batch_size, arguments.precision)
    if arguments.text is not None:
        _invert_text(inverter, arguments, options)
        return
    if arguments.out is None:
        raise ValueError("--vectors needs --out FILE.parquet to write the texts to")
    out = Path(arguments.out)
    if out.suffix != ".parquet":
        raise ValueError(f"--out {out}: give a file that ends in .parquet")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: its folder cannot be made ({error.strerror}: {error.filename})") from error
    ids, vectors = read_vectors(arguments.vectors, arguments.column)
    total = len(vectors)
    encoder, corrector = (
        (_encoder(inverter, arguments) if arguments.refine_steps else None),
        _corrector(inverter, arguments),
    )
    inversions = inverter.invert(
        vectors,
        steps=arguments.steps,
        strategy=arguments.strategy,
        seed=arguments.seed,
        options=options,
        on_progress=lambda done: _tell(f"inverted {done:,} of {total:,}"),
    )
    print(file=sys.stderr)
    if encoder is not None:
        inversions = _refined(inverter, vectors, inversions, encoder, corrector, arguments)
        print(file=sys.stderr)
    table = pa.table(
        {
            "id": pa.array(ids),
            "text": pa.array([inversion.text for inversion in inversions], pa.string()),
            "confidence": pa.array([inversion.confidence for inversion in inversions], pa.float32()),
            "probability": pa.array([inversion.probability for inversion in inversions], pa.float32()),
            "cosine": pa.array([_finite(inversion.cosine) for inversion in inversions], pa.float32()),
            "encoder_calls": pa.array([inversion.encoder_calls for inversion in inversions], pa.int32()),
        }
    )
    with whole_file(out) as partial:
        pq.write_table(table, partial)
    for inversion in inversions[:5]:
        print(f"{inversion.confidence if inversion.cosine is None else inversion.cosine:.2f}  {inversion.text}")
    print(f"{total:,} texts in {out}")


def _tell(line: str) -> None:
    print(f"\r{line}", end="", file=sys.stderr, flush=True)


def _finite(cosine: float | None) -> float | None:
    """None for a text without a direction."""
    return cosine if cosine is not None and np.isfinite(cosine) else None


def _encoder(inverter: TextInverter, arguments: argparse.Namespace) -> Encoder:
    return open_encoder(inverter.config.pairs.encoder, device=arguments.device)


def _corrector(inverter: TextInverter, arguments: argparse.Namespace) -> TrainedCorrector | None:
    if arguments.corrector is None:
        return None
    if not arguments.refine_steps:
        raise ValueError("--corrector is asked in refinement alone; give --refine-steps N with it, such as 5")
    return load_corrector(
        arguments.corrector,
        inverter.config.pairs,
        arguments.device,
        arguments.batch_size,
        arguments.precision,
        arguments.seed,
    )


def _refined(
    inverter: TextInverter,
    vectors: np.ndarray,
    first: list[Inversion],
    encoder: Encoder,
    corrector: TrainedCorrector | None,
    arguments: argparse.Namespace,
) -> list[Inversion]:
    return refined(
        inverter,
        vectors,
        first,
        encoder,
        arguments.refine_steps,
        arguments.refine_beam,
        corrector,
        seed=arguments.seed,
        on_progress=lambda done: _tell(f"refined {done:,} of {len(vectors):,}"),
    )


def _invert_text(inverter: TextInverter, arguments: argparse.Namespace, options: DecodingOptions) -> None:
    """Encodes a text, forgets it, inverts the vector and says how near the result is."""
    if not arguments.text.strip():
        raise ValueError("--text is empty; give a text to encode and to recover")
    encoder, corrector = _encoder(inverter, arguments), _corrector(inverter, arguments)
    vector = encoder.encode([arguments.text])
    found = inverter.invert(
        vector, steps=arguments.steps, strategy=arguments.strategy, seed=arguments.seed, options=options
    )
    if arguments.refine_steps:
        found = _refined(inverter, vector, found, encoder, corrector, arguments)
        print(file=sys.stderr)
    [inversion] = found
    again = encoder.encode([inversion.text or " "])
    cosine = float((vector * again).sum() / (np.linalg.norm(vector) * np.linalg.norm(again)))
    print(f"original   {arguments.text}")
    print(f"recovered  {inversion.text}")
    if inversion.probability is not None:
        print(f"at least 90% of it is right with probability {inversion.probability:.2f}")
    print(f"confidence {inversion.confidence:.2f}, cosine of the two vectors {cosine:.3f}")


def compare(arguments: argparse.Namespace) -> None:
    """Prints each figure of two reports, and how much they differ.

    Raises:
        ValueError: they cannot be compared.
    """
    first, second = Path(arguments.first), Path(arguments.second)
    found = scores.compare(first, second, arguments.resamples, arguments.seed)
    if not found:
        raise ValueError(f"{first} and {second} have no figure in common")
    n = next(iter(found.values())).n
    print(f"{n:,} texts; difference: {second} less {first}, with its 95% interval (paired bootstrap over texts)\n")
    rows = [["", str(first), str(second), "difference", "95% interval", "p"]]
    for name, each in found.items():
        values = [shown(name, value) for value in (each.first, each.second, each.value, each.low, each.high)]
        interval = f"{values[3]} to {values[4]}"
        rows.append(
            [LABELS.get(name, name), *values[:3], interval, f"{each.p:.1g}" if each.p < 0.1 else f"{each.p:.2f}"]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def import_inverter(arguments: argparse.Namespace) -> None:
    """Makes a checkpoint of an inverter in vec2text's format.

    Raises:
        ValueError: it cannot be read, or encoder or tokenizer are not its own.
    """
    from embinv.config import load_config
    from embinv.importing import import_vec2text

    config = load_config(arguments.config)
    made = import_vec2text(
        arguments.source, arguments.out, config.name, config.encoder, arguments.tokenizer, arguments.revision
    )
    model = made.model
    print(
        f"{arguments.source}: {model.layers} layers, hidden {model.hidden}, vectors of {model.embedding_dim} dimensions"
    )
    print(f"{arguments.out} inverts vectors of {config.encoder.model}, up to {model.seq_len - 1} tokens")
    print("vectors must be made as it was trained: the same pooling, the same scale")


def demo(arguments: argparse.Namespace) -> None:
    """Runs jobs/demo.py in a process of its own, from the checkout that this package lies in.

    Raises:
        ValueError: the package was installed without its checkout.
    """
    root = Path(__file__).resolve().parent.parent
    script = root / "jobs" / "demo.py"
    if not script.is_file() or not (root / "configs").is_dir():
        raise ValueError(
            "`embinv demo` needs the source checkout (jobs/, configs/): clone the repository, then `make demo`"
        )
    command = [sys.executable, str(script), "--out", arguments.out, *(["--fresh"] if arguments.fresh else [])]
    raise SystemExit(subprocess.run(command, check=False).returncode)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0")
    return int(text)


def _beam(text: str) -> int:
    value = _positive(text)
    if value > 64:
        raise argparse.ArgumentTypeError(f"{value} is more than 64, and each step makes its square of texts")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="embinv", description="Recover text from embedding vectors.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser(
        "invert",
        help="vectors to texts",
        description="Invert a dump of vectors, or show what one text's vector gives away.",
        epilog="examples:\n"
        "  embinv invert --checkpoint runs/demo/checkpoint --vectors dump.npy --out recovered.parquet\n"
        '  embinv invert --checkpoint runs/demo/checkpoint --text "Dr. Weber moved the appointment to May 4."',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that jobs/train.py made")
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--vectors", metavar="FILE", help=".npy [N, D], or .parquet with a column of lists")
    source.add_argument("--text", help="encode this text, then recover it from its vector alone")
    one.add_argument(
        "--out",
        metavar="FILE",
        help=".parquet to write: id (row number where the file has none), text, confidence, the probability that 90%% "
        "of it is right, null until jobs/evaluate.py has calibrated this way of decoding; and of refined texts cosine "
        "and encoder_calls",
    )
    one.add_argument("--column", default="embedding", help="the vectors' column in a .parquet file (default embedding)")
    one.add_argument("--steps", type=int, default=8, help="denoising passes (default 8)")
    one.add_argument(
        "--strategy",
        metavar="NAME",
        help=f"decoder: {', '.join(get_args(Strategy))} (default: confidence, or greedy of a T5)",
    )
    one.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"how the decoder works: {', '.join(DecodingOptions.model_fields)}; repeatable",
    )
    one.add_argument("--seed", type=int, default=0, help="for decoders that sample (default 0)")
    one.add_argument(
        "--refine-steps",
        type=_whole,
        default=0,
        metavar="N",
        help="bring texts closer with the encoder at hand: write parts anew and keep what comes nearest to the vector, "
        "so many times (default 0: the encoder is not read)",
    )
    one.add_argument(
        "--refine-beam", type=_beam, default=4, metavar="B", help="texts held, and proposals for each (default 4)"
    )
    one.add_argument(
        "--corrector",
        metavar="DIR",
        help="checkpoint of a corrector, which was trained to see what is wrong with a text by the text's own vector; "
        "without it, the inverter writes parts anew",
    )
    one.add_argument("--batch-size", type=int, default=128, help="vectors decoded together (default 128)")
    one.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    one.add_argument(
        "--precision",
        default="auto",
        choices=get_args(Precision),
        help="what matrices are multiplied in; auto (default): bfloat16, which rounds and is about twice as fast, "
        "where the device multiplies in it, else float32",
    )
    one.set_defaults(run=invert)

    both = commands.add_parser(
        "compare",
        help="two reports on the same texts",
        description="Say which of two reports of jobs/evaluate.py is better, text by text.",
        epilog="example:\n  embinv compare runs/one runs/other",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    both.add_argument("first", metavar="DIR", help="folder with a report")
    both.add_argument("second", metavar="DIR", help="another one, on the same pairs")
    both.add_argument("--resamples", type=_positive, default=10_000, help="of the bootstrap (default 10,000)")
    both.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    both.set_defaults(run=compare)

    taken = commands.add_parser(
        "import",
        help="an inverter in vec2text's format",
        description="Make a checkpoint folder of an inverter that was trained with vec2text (T5, Morris et al. 2023).",
        epilog="example:\n  embinv import --from kennethge123/qwen3-8b-t5-inverter --config configs/qwen3-8b.yaml "
        "--out runs/qwen3-8b-t5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    taken.add_argument("--from", dest="source", required=True, metavar="SOURCE", help="folder or hub id")
    taken.add_argument("--revision", metavar="NAME", help="hub commit or tag")
    taken.add_argument("--config", required=True, metavar="YAML", help="its `name` and `encoder` are taken")
    taken.add_argument("--tokenizer", metavar="SOURCE", help="folder or hub id (default: the T5 that SOURCE names)")
    taken.add_argument("--out", required=True, metavar="DIR", help="checkpoint folder to write")
    taken.set_defaults(run=import_inverter)

    two = commands.add_parser(
        "demo",
        help="the whole way on this machine, about 10 minutes",
        description="corpus -> encode -> train -> evaluate -> serve -> invert over HTTP, on synthetic English records.",
    )
    two.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="folder for everything it makes (default runs/demo)"
    )
    two.add_argument("--fresh", action="store_true", help="delete what is there and start over")
    two.set_defaults(run=demo)
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


if __name__ == "__main__":
    main()
