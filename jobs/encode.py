"""shards -> pairs (id, text, lang, token_ids, embedding), exactly once, by Ray Data.

Each text is aligned with what the decoder can write (embinv/data/alignment.py) and encoded as the recipe says.
Ray Data's checkpoint notes the ids of every committed file, so that a job that was killed goes on where it was: no
row is lost, none stands twice.
"""

import sys
import threading
import time
from collections import Counter
from json import loads
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from ray.data import SaveMode
from ray.data.checkpoint import CheckpointConfig

from embinv.config import Config
from embinv.data.alignment import TextTokenizer, align
from embinv.data.schema import PairsRecipe, fixed_size_list, pairs_schema, read_recipe, require_same_recipe
from embinv.data.split import assign_split
from embinv.encoders.base import open_encoder
from embinv.encoders.spec import EncoderSpec
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    output_folder,
    run_job,
    write_json,
)
from jobs.corpus import STATS_FILE
from jobs.session import ray_session

PROGRESS_EVERY = 10.0  # seconds


def recipe_of(config: Config) -> PairsRecipe:
    """The recipe that a config asks for; loads the tokenizer."""
    tokenizer = TextTokenizer(config.tokenizer, trust_remote_code=config.encoder.trust_remote_code)
    return PairsRecipe(
        encoder=config.encoder,
        tokenizer=config.tokenizer,
        tokenizer_hash=tokenizer.fingerprint(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        seq_len=config.data.seq_len,
    )


class AlignAndEncode:
    """One encoder process: aligns a batch of texts, encodes it and names the split of each."""

    def __init__(
        self, spec: EncoderSpec, recipe: PairsRecipe, config: Config, threads: int | None, device: str
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.config = config
        self.schema = pairs_schema(recipe)
        self.tokenizer = TextTokenizer(config.tokenizer, trust_remote_code=spec.trust_remote_code)
        self.encoder = open_encoder(spec, device=device, batch_size=config.encoding.batch_size)

    def __call__(self, table: pa.Table) -> pa.Table:
        data = self.config.data
        aligned = align(table["text"].to_pylist(), self.tokenizer, data.seq_len, data.min_tokens)
        kept = table.take(pa.array(aligned.rows))
        embeddings = self.encoder.encode(aligned.texts)
        pairs = pa.Table.from_arrays(
            [
                kept["id"].combine_chunks(),
                pa.array(aligned.texts, pa.string()),
                kept["lang"].combine_chunks(),
                fixed_size_list(aligned.token_ids, pa.int32()),
                fixed_size_list(embeddings.astype("float16"), pa.float16()),
            ],
            schema=self.schema,
        )
        splits = [assign_split(text, data.validation, data.test) for text in aligned.texts]
        return pairs.append_column(pa.field("split", pa.string(), nullable=False), pa.array(splits, pa.string()))


def make_pairs(config: Config, texts: Path, out: Path) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns the statistics that it also writes.

    Raises:
        ValueError: there are no shards, or `out` holds pairs of another recipe.
    """
    shards = sorted(texts.glob("*.parquet"))
    if not shards or not (texts / STATS_FILE).is_file():
        raise ValueError(f"--texts {texts}: holds no finished corpus; make one with jobs/corpus.py --out {texts}")
    corpus = loads((texts / STATS_FILE).read_text(encoding="utf-8"))
    recipe = recipe_of(config)
    stats_path, progress = out / STATS_FILE, out.with_name(f".{out.name}.progress")
    _require_same_run(out, progress, recipe, config, texts)
    if stats_path.is_file():
        stats = loads(stats_path.read_text(encoding="utf-8"))
        print(f"{out}: all done before, {stats['rows']:,} pairs")
        return stats

    run = {"texts": str(texts), "recipe": recipe.model_dump(mode="json"), "data": _alignment(config)}
    progress.mkdir(parents=True, exist_ok=True)
    write_json(progress / "run.json", run)  # before anything lies in `out`, or that would be taken for a stranger's
    keep_settings(config, out, "encode")
    clock = progress / "seconds.json"
    earlier = loads(clock.read_text(encoding="utf-8")) if clock.is_file() else 0.0
    began, before = time.monotonic(), count_rows(out)
    with _shown_progress(out, corpus["rows"], before, clock, earlier):
        _encode(config, recipe, texts, out, progress / "ids")
    seconds = round(time.monotonic() - began, 2)
    splits = {folder.name.removeprefix("split="): count_rows(folder) for folder in sorted(out.glob("split=*"))}
    rows = sum(splits.values())
    if rows == 0:
        raise ValueError(f"none of {corpus['rows']} texts has data.min_tokens ({config.data.min_tokens}) tokens")
    stats = {
        "rows": rows,
        "splits": splits,
        "dropped": {"too_few_tokens": corpus["rows"] - rows},
        "seconds": round(seconds + earlier, 2),
        "samples_per_second": round((rows - before) / seconds, 1),
        "corpus": {name: corpus[name] for name in ("rows", "languages", "dropped", "seconds")},
    }
    write_json(stats_path, stats)
    rmtree(progress)
    return stats


def _encode(config: Config, recipe: PairsRecipe, texts: Path, out: Path, done_ids: Path) -> None:
    """The Ray Data pipeline: read what is not done, encode, write."""
    encoding = config.encoding
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    # The traps of this pair of settings are in the docstring of tests/jobs/test_encode_resume.py.
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(done_ids), delete_checkpoint_on_success=False
    )
    cores = int(ray.cluster_resources().get("CPU", 1))
    threads = encoding.threads or (max(1, cores // encoding.workers) if encoding.device == "cpu" else None)
    spare = max(0, cores - 2) / encoding.workers  # one CPU stays for tasks and one for the checkpoint's filter
    resources = {"num_gpus": 1, "num_cpus": 0} if encoding.device == "cuda" else {"num_cpus": min(1, spare)}
    with ray.data.DataContext.current(context):
        dataset = (
            ray.data.read_parquet(str(texts), file_extensions=["parquet"])
            .select_columns(["id", "text", "lang"])
            .repartition(target_num_rows_per_block=config.data.shard_rows)
            .map_batches(
                AlignAndEncode,
                fn_constructor_args=[config.encoder, recipe, config, threads, encoding.device],
                compute=ray.data.ActorPoolStrategy(size=encoding.workers),
                batch_size=config.data.shard_rows,
                batch_format="pyarrow",
                **resources,
            )
        )
        dataset.write_parquet(str(out), partition_cols=["split"], mode=SaveMode.APPEND)
    _require_unique(out)


def _require_unique(out: Path) -> None:
    """Our own promise, checked at the end of each run: no id stands twice."""
    counts = Counter(i for file in _files(out) for i in pq.read_table(file, columns=["id"])["id"].to_pylist())
    twice = [i for i, count in counts.items() if count > 1]
    assert not twice, f"{len(twice)} ids stand twice in {out}, {twice[0]} for one"


def _alignment(config: Config) -> dict[str, Any]:
    """The settings outside the recipe that decide which pairs come out."""
    return config.data.model_dump(mode="json", include={"min_tokens", "validation", "test"})


def _require_same_run(out: Path, progress: Path, recipe: PairsRecipe, config: Config, texts: Path) -> None:
    """Refuses to mix pairs of two recipes or two corpora in one folder."""
    if not out.exists() or not any(out.iterdir()):
        rmtree(progress, ignore_errors=True)  # left by a run whose output is gone: its ids would be skipped
        return
    if (progress / "run.json").is_file():
        run = loads((progress / "run.json").read_text(encoding="utf-8"))
        require_same_recipe(PairsRecipe.model_validate(run["recipe"]), recipe, out, "the config")
        if run["texts"] != str(texts) or run["data"] != _alignment(config):
            raise ValueError(
                f"--out {out}: was begun from {run['texts']} with {run['data']}; choose another folder or delete it"
            )
    elif (out / STATS_FILE).is_file():
        require_same_recipe(read_recipe(out), recipe, out, "the config")
    else:
        raise ValueError(f"--out {out}: is not empty and holds no pairs of ours; choose another folder")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def count_rows(folder: Path) -> int:
    """Rows in the committed files of a folder."""
    return sum(pq.read_metadata(file).num_rows for file in _files(folder))


class _shown_progress:
    """Prints how many rows are written, how fast, and how long it will take; keeps the time for a later sitting."""

    def __init__(self, out: Path, total: int, before: int, clock: Path, earlier: float) -> None:
        self.out, self.total, self.before = out, total, before
        self.clock, self.earlier = clock, earlier  # seconds of all sittings
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self.before:
            print(f"going on: {self.before:,} of {self.total:,} texts are encoded", flush=True)
        self.began = time.monotonic()
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(PROGRESS_EVERY):
            write_json(self.clock, round(self.earlier + time.monotonic() - self.began, 2))
            try:
                rows = count_rows(self.out)
            except (OSError, pa.ArrowInvalid):
                continue  # a file is being committed just now
            speed = (rows - self.before) / (time.monotonic() - self.began)
            left = f", {(self.total - rows) / speed:.0f} s left" if speed > 0 else ""
            print(f"encoded {rows:,} of {self.total:,} texts ({speed:.0f}/s{left})", flush=True)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Encode shards of texts into pairs of (text, token ids, embedding). Run it again after a crash: it goes on.",
        "example:\n  python jobs/encode.py --config configs/minilm.yaml --texts runs/my/texts --out runs/my/pairs",
    )
    add_config_arguments(parser)
    parser.add_argument("--texts", required=True, metavar="DIR", help="shards that jobs/corpus.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the pairs")
    arguments = parser.parse_args(argv)
    config = config_from(arguments)
    texts, out = output_folder(arguments.texts, "--texts"), output_folder(arguments.out)
    announce(config, "encode", texts=texts, out=out)
    with ray_session():
        stats = make_pairs(config, texts, out)
    print(f"{stats['rows']:,} pairs in {out}: {stats['splits']}, {stats['samples_per_second']}/s")
    print(f"next: python jobs/train.py --config {arguments.config} --data {out} --out {out.parent}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
