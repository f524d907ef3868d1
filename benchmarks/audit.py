"""What an audit of a dump costs, and whether its figures hold.

    python benchmarks/audit.py read        1,000,000 vectors in Parquet, read, checked and recognised
    python benchmarks/audit.py invert      a dump's inversion beside bare decoding of the same vectors
    python benchmarks/audit.py demo        `embinv audit` of the demo's held-out records, and a recount of its rate
    python benchmarks/audit.py spaces      which dumps are taken for the demo's encoder's, and which are refused
    python benchmarks/audit.py all

Takes the demo's checkpoint, pairs and texts. Lines on stderr as it goes on, one JSON line on stdout.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.audit_recount import recount
from benchmarks.processes import in_a_fresh_process
from embinv.data.dumps.inspection import inspect
from embinv.data.dumps.opening import open_dump
from embinv.data.pairs import read_pairs
from embinv.data.schema import fixed_size_list
from embinv.decoding.base import final_state
from embinv.decoding.options import Choices, DecodingOptions
from embinv.dump_inversion import WINDOW_ROWS, invert_here
from embinv.dump_inverter import DumpInverter, HowToInvert
from embinv.dump_texts import Texts
from embinv.recognising import recognise_dump
from embinv.spaces.moments import Shape, moments_of
from embinv.spaces.recognition import Seen, recognise

ROOT = Path(__file__).resolve().parents[1]
GROUP = 65_536  # rows of a row group
FEWER = 2  # the smaller dump has so many times fewer rows, to see whether memory grows


def read(arguments: argparse.Namespace) -> dict[str, Any]:
    """Vectors a second that are read, checked and recognised, and how memory grows with the dump."""
    found, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (arguments.rows // FEWER, arguments.rows):
            path = Path(folder) / f"{rows}.parquet"
            write_dump(path, rows, arguments.data)
            given = (read_once, str(path), str(arguments.checkpoint))
            runs = [in_a_fresh_process(*given) for _ in range(arguments.repeats)]
            peaks.append(median(run["peak_mib"] for run in runs))
            found = [run["vectors_per_second"] for run in runs]
            speeds = ", ".join(f"{each:,.0f}" for each in found)
            say(f"{rows:,} vectors: {speeds}/s, {peaks[-1]:,.0f} MiB, {runs[0]['verdict']}")
            path.unlink()
    return {
        "vectors_per_second": round(median(found)),
        "rows": arguments.rows,
        "peak_mib": peaks[-1],
        "peak_mib_of_half": peaks[0],
    }


def write_dump(path: Path, rows: int, data: Path) -> None:
    """Vectors [rows, D] float32 like the demo's held-out ones, each with a little noise of its own."""
    own, rng = read_pairs(data, "test").embeddings.astype(np.float32), np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), ("embedding", pa.list_(pa.float32(), own.shape[1]))])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, rows, GROUP):
            ids = np.arange(start, min(start + GROUP, rows))
            vectors = own[rng.integers(0, len(own), len(ids))]
            vectors += rng.normal(scale=0.01, size=vectors.shape).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            columns = [pa.array(ids), fixed_size_list(vectors, pa.float32())]
            writer.write_table(pa.Table.from_arrays(columns, names=["id", "embedding"]).cast(schema))


def read_once(path: str, checkpoint: str) -> dict[str, Any]:
    """One reading, in this process."""
    began = time.perf_counter()
    inspection = inspect(open_dump(path), WINDOW_ROWS)
    inspection.require_good()
    verdict = recognise_dump(inspection, Path(checkpoint)).recognition.verdict
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"vectors_per_second": inspection.rows / seconds, "peak_mib": peak, "verdict": verdict}


def invert(arguments: argparse.Namespace) -> dict[str, Any]:
    """Inversions a second of a dump, over those of the bare decoder in batches of the same size."""
    torch.set_num_threads(os.cpu_count() or 1)
    inverter = DumpInverter(HowToInvert(checkpoint=str(arguments.checkpoint)))
    vectors = read_pairs(arguments.data, "test").embeddings.astype(np.float32)[:WINDOW_ROWS]
    shares, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dump.npy"
        np.save(path, vectors)
        dump = open_dump(str(path))
        inspection = inspect(dump, WINDOW_ROWS)
        decode(inverter, vectors[:256])
        for repeat in range(arguments.repeats):
            texts = Texts(Path(folder) / f"texts{repeat}")
            texts.out.mkdir()
            began = time.perf_counter()
            decode(inverter, vectors)
            between = time.perf_counter()
            invert_here(dump, inspection.windows, texts, inverter, WINDOW_ROWS, lambda window: None)
            whole = time.perf_counter() - between
            shares.append((between - began) / whole)
            rates.append(len(vectors) / whole)
            say(f"{rates[-1]:,.0f} inversions/s of a dump, {shares[-1]:.3f} of the bare decoder's")
    return {"inversions_per_second": round(median(rates), 1), "share_of_bare_decoding": round(median(shares), 3)}


@torch.inference_mode()
def decode(inverter: DumpInverter, vectors: np.ndarray) -> None:
    """The decoder alone, in the batches that the inverter makes."""
    choices = Choices(inverter.strategy, inverter.how.steps, 0, DecodingOptions())
    size = inverter.inverter.batch_size
    for start in range(0, len(vectors), size):
        final_state(inverter.inverter.states(vectors[start : start + size], choices))


def demo(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `embinv audit` on the demo's held-out records, and the recount of its entity rate."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "embinv.cli", "audit", "--checkpoint", str(arguments.checkpoint)]
        command += ["--vectors", str(arguments.data / "split=test"), "--metadata", "text,lang", "--text-column", "text"]
        command += ["--texts", str(arguments.texts), "--out", folder]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - began
        counted = recount(Path(folder), Path(folder) / "recovered", arguments.texts, "text")
    return {
        "audit_seconds": round(seconds, 1),
        "entity_recall": round(counted["report"]["recall"], 4),
        "entities": counted["report"]["n"],
        "recount_difference": counted["difference"],
    }


def spaces(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is said of the encoder's own vectors, and of others made of them."""
    trained = moments_of(read_pairs(arguments.data, "train").embeddings)
    seen = Seen(trained.statistics(), Shape.load(arguments.checkpoint / "statistics.safetensors") or trained.shape())
    own = read_pairs(arguments.data, "test").embeddings.astype(np.float32)
    rng, dim = np.random.default_rng(0), own.shape[1]
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)
    others = {
        "its own": own,
        "50 of its own": own[:50],
        "its own, noise of half the norm": own + rng.normal(size=own.shape).astype(np.float32) * 0.5 / np.sqrt(dim),
        "its own, signs alone": np.sign(own),
        "rotated": own @ rotation,
        "coordinates in another order": own[:, rng.permutation(dim)],
        "negated": -own,
        "random directions": rng.normal(size=own.shape).astype(np.float32),
        "half of its dimensions": own[:, : dim // 2],
    }
    found = {}
    for name, vectors in others.items():
        moments = moments_of(vectors.astype(np.float32))
        said = recognise(Seen(moments.statistics(), moments.shape()), seen, dim, "the encoder")
        found[name] = {"verdict": said.verdict, "agreement": said.agreement, "deviations": said.deviations}
        say(f"{name}: {said.verdict}, {said.reason}")
    return {"spaces": found}


MEASURES = {"read": read, "invert": invert, "demo": demo, "spaces": spaces}


def say(line: str) -> None:
    """Progress goes to stderr, since stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "all"])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs" / "demo" / "checkpoint", metavar="DIR")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "demo" / "pairs", metavar="DIR")
    parser.add_argument("--texts", type=Path, default=ROOT / "runs" / "demo" / "texts", metavar="DIR")
    parser.add_argument("--rows", type=int, default=1_000_000, help="read: vectors (default 1,000,000)")
    parser.add_argument("--repeats", type=int, default=3, help="of what is timed; medians count (default 3)")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "audit", "cores": os.cpu_count()}
    try:
        for name in list(MEASURES) if arguments.measure == "all" else [arguments.measure]:
            result |= MEASURES[name](arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(result))


if __name__ == "__main__":
    main()
