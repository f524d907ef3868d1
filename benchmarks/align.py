"""What other spaces than the inverter's own give away through a map, by the number of known pairs.

    python benchmarks/align.py --table

The spaces are made of the checkpoint's own vectors (cut, rounded, turned, projected), or by another encoder: LSA is a
real one that knows words only (TF-IDF and SVD, fitted on the training texts), a hash knows nothing and bounds from
below what a map can do. Known pairs are of the split `train`, measured is on `test`, less the texts that `train` holds
too. The demo's checkpoint and pairs are taken unless told otherwise. Lines on stderr as it goes on, a Markdown table
with --table, one JSON line on stdout.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import numpy as np
import torch

from embinv.aligning import COUNTS, KnownPairs, leakage_of, measure_maps, measure_references
from embinv.commands.align_report import REFERENCES, figures_of, markdown_table
from embinv.data.held_out import remove_known
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from embinv.inverter import load_inverter

ROOT = Path(__file__).resolve().parents[1]
LSA_DIMENSIONS = 256
BOUNDS = ("own", "mean", "other")  # references that are the same for every space

Space = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Vectors [N, D] of the checkpoint's encoder and their N texts in, [N, E] of the unknown space out."""


def cut(dimensions: int) -> Space:
    """The first dimensions, scaled to unit length, as Matryoshka encoders are cut."""
    return lambda vectors, texts: unit(vectors[:, :dimensions])


def int8(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Each vector in whole numbers from -127 to 127."""
    return np.rint(127 * vectors / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.float32)


def binary(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Signs alone."""
    return np.where(vectors >= 0, 1.0, -1.0).astype(np.float32)


def rotated(dimension: int, seed: int) -> Space:
    """Turned by a secret matrix."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))[0]
    return lambda vectors, texts: (vectors @ turn).astype(np.float32)


def projected(dimension: int, onto: int, seed: int) -> Space:
    """Multiplied by a secret Gaussian matrix."""
    matrix = np.random.default_rng(seed).normal(size=(dimension, onto)) / np.sqrt(onto)
    return lambda vectors, texts: (vectors @ matrix).astype(np.float32)


def hashed(dimension: int) -> Space:
    """A pseudo-random vector for each text, of which nothing can be learned."""
    encoder = HashEncoder(EncoderSpec(kind="hash", model="hash", dim=dimension))
    return lambda vectors, texts: encoder.encode(texts)


def lsa(texts: Sequence[str], dimensions: int, seed: int) -> Space:
    """Latent semantic analysis (Deerwester et al. 1990), fitted on texts: TF-IDF and a truncated SVD, normalised."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True)
    counted = words.fit_transform(texts)
    reduced = TruncatedSVD(min(dimensions, counted.shape[1] - 1), random_state=seed).fit(counted)
    return lambda vectors, texts: reduced.transform(words.transform(texts)).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """[N, D] scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def spaces(dimension: int, training: Sequence[str], seed: int) -> dict[str, Space]:
    """Every space, by the name that the table has; of cuts those that the encoder has more dimensions than."""
    return {
        **{f"first {kept} dimensions": cut(kept) for kept in (192, 64) if kept < dimension},
        "int8": int8,
        "binary": binary,
        "secret rotation": rotated(dimension, seed),
        "random projection to 256": projected(dimension, 256, seed),
        "random projection to 768": projected(dimension, 768, seed),
        "LSA": lsa(training, LSA_DIMENSIONS, seed),
        "hash": hashed(dimension),
    }


def measure(
    checkpoint: Path, data: Path, rows: int, counts: Sequence[int], steps: int, seed: int, names: Sequence[str]
) -> dict[str, Any]:
    """Figures of every space at every number of known pairs.

    Raises:
        ValueError: checkpoint and data do not belong together, or there are too few texts.
    """
    inverter = load_inverter(checkpoint)
    require_same_recipe(read_recipe(data), inverter.config.pairs, data, f"the checkpoint {checkpoint}")
    training = read_pairs(data, "train")
    test = remove_known(read_pairs(data, "test").sample(rows, seed), training).pairs
    known = training.sample(max(counts), seed)
    if len(test) < 2 or len(known) < max(counts):
        raise ValueError(
            f"{data} has {len(test)} test texts that training does not hold, and {len(known)} for training; lower "
            "--known-pairs, or encode more"
        )
    own = [_pairs(each, _own(each)) for each in (known, test)]
    references = measure_references(inverter, *own, steps, seed, _tell)
    found = {}
    for name, space in spaces(inverter.config.pairs.encoder.dim, training.texts, seed).items():
        if names and name not in names:
            continue
        _tell(name)
        seen, unseen = (_usable(_pairs(each, space(_own(each), each.texts))) for each in (known, test))
        wanted = sorted({min(count, len(seen)) for count in counts})
        by_known = measure_maps(inverter, seen, unseen, wanted, steps, seed, _tell)
        found[name] = {
            "dimensions": unseen.unknown.shape[1],
            "by_known_pairs": [figures_of(each) for each in by_known],
        }
        if unseen.unknown.shape[1] == unseen.own.shape[1]:
            found[name]["unmapped"] = figures_of(leakage_of(inverter, unseen, unseen.unknown, steps, seed))
    return {
        "held_out_texts": len(test),
        "steps": steps,
        "seed": seed,
        "references": {name: figures_of(references[name]) for name in BOUNDS},
        "spaces": found,
    }


def table(result: dict[str, Any]) -> str:
    """Token F1 of every space at every number of known pairs, with its standard error, and the chosen map."""
    spaces = result["spaces"]
    counts = sorted({row["known_pairs"] for space in spaces.values() for row in space["by_known_pairs"]})
    rows = [["space", "dimensions", REFERENCES["unmapped"], *(f"{count:,} pairs" for count in counts)]]
    for name, space in spaces.items():
        by_known = {row["known_pairs"]: f"{_f1(row)}, {row['map']}" for row in space["by_known_pairs"]}
        without = _f1(space["unmapped"]) if "unmapped" in space else "-"
        rows.append([name, str(space["dimensions"]), without, *(by_known.get(count, "-") for count in counts)])
    bounds = "; ".join(f"{REFERENCES[name]} {_f1(result['references'][name])}" for name in BOUNDS)
    said = f"Token F1 of {result['held_out_texts']:,} held-out texts, ± standard error; {bounds}."
    return "\n".join([*markdown_table(rows), "", said])


def _f1(figures: dict[str, Any]) -> str:
    return f"{figures['token_f1']:.1%} ± {figures['token_f1_se']:.1%}"


def _own(pairs: Pairs) -> np.ndarray:
    return pairs.embeddings.astype(np.float32)


def _pairs(pairs: Pairs, unknown: np.ndarray) -> KnownPairs:
    return KnownPairs(pairs.texts, unknown, _own(pairs), {})


def _usable(pairs: KnownPairs) -> KnownPairs:
    """Without rows that have no direction there, such as texts of words that LSA has not seen."""
    return pairs.take(np.flatnonzero(pairs.unknown.any(axis=1)))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs" / "demo" / "checkpoint", metavar="DIR")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "demo" / "pairs", metavar="DIR")
    parser.add_argument("--rows", type=int, default=500, help="test texts at most (default 500)")
    parser.add_argument(
        "--known-pairs",
        type=lambda text: tuple(map(int, text.split(","))),
        default=COUNTS,
        metavar="K,K,...",
        help=f"default {','.join(map(str, COUNTS))}",
    )
    parser.add_argument("--space", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--steps", type=int, default=8, help="denoising passes (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="of samples, secrets and folds (default 0)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU (default: all)")
    parser.add_argument("--table", action="store_true", help="print a Markdown table before the JSON line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        found = measure(
            arguments.checkpoint,
            arguments.data,
            arguments.rows,
            arguments.known_pairs,
            arguments.steps,
            arguments.seed,
            arguments.space,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if arguments.table:
        print(table(found))
    print(json.dumps({"benchmark": "align", "cores": os.cpu_count(), "threads": arguments.threads, **found}))


if __name__ == "__main__":
    main()
