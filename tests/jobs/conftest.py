"""Small inputs for the jobs, and jobs as programs of their own that can be killed."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.processes import own_ray_environment
from embinv.config import load_config
from embinv.data.alignment import align
from embinv.data.corpus import text_id
from embinv.data.records import BLOCK_SIZE, generate_records
from embinv.data.schema import fixed_size_list, pairs_schema
from embinv.data.split import assign_split
from embinv.data.tokenizer import TextTokenizer
from jobs.corpus import SHARD_SCHEMA
from jobs.encode import recipe_of

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "minilm.yaml"
WAIT_S = 480  # for a job in the background; a hang fails here, with the job's log

TINY = (
    "data.seq_len=16",
    "data.validation=0.1",
    "data.test=0.1",
    "model.size=tiny",
    "training.minutes=null",
    "training.max_steps=20",
    "training.batch_size=32",
    "training.precision=float32",  # the same on every machine
    "training.validations=2",
    "training.validation_rows=16",
    "training.validation_steps=2",
    "evaluation.rows=12",
    "evaluation.steps=2",
    "evaluation.examples=3",
    "evaluation.sweep_rows=4",
    "evaluation.workers=2",
)


@pytest.fixture(scope="session")
def minilm():
    """Returns the shipped config with overrides."""
    return lambda *overrides: load_config(CONFIG, overrides)


@pytest.fixture(scope="session")
def tiny(minilm):
    """Returns a config that trains in seconds, with overrides on top."""
    return lambda *overrides: minilm(*TINY, *overrides)


@pytest.fixture(scope="session")
def write_texts():
    """Returns a function that writes a finished corpus of English records, as jobs/corpus.py would."""

    def write(folder, rows, shard_rows=1000, seed=0):
        unique = {}
        for block in range(-(-rows // BLOCK_SIZE) + 1):
            for record in generate_records("en", block, seed):
                unique.setdefault(text_id(record.text), record.text)
        ids, texts = list(unique)[:rows], list(unique.values())[:rows]
        table = pa.table(
            {"id": ids, "text": texts, "lang": ["en"] * rows, "spans": pa.nulls(rows, SHARD_SCHEMA.field("spans").type)}
        ).cast(SHARD_SCHEMA)
        folder.mkdir(parents=True)
        for part, start in enumerate(range(0, rows, shard_rows)):
            pq.write_table(table.slice(start, shard_rows), folder / f"part-{part:05d}.parquet")
        stats = {"rows": rows, "languages": {"en": rows}, "read": rows, "dropped": {}, "seconds": 1.0, "data": {}}
        (folder / "_stats.json").write_text(json.dumps(stats))
        return dict(zip(ids, texts, strict=True))

    return write


@pytest.fixture(scope="session")
def tiny_pairs(tiny, write_texts, tmp_path_factory):
    """Pairs of 600 records under the recipe of `tiny`, their vectors bags of random token vectors: no encoder runs."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = write_texts(folder / "texts", 600)
    config = tiny()
    recipe = recipe_of(config)
    aligned = align(list(texts.values()), TextTokenizer(config.tokenizer).fast, recipe.seq_len, config.data.min_tokens)
    token_vectors = np.random.default_rng(0).normal(size=(recipe.vocab_size, recipe.encoder.dim))
    vectors = token_vectors[aligned.token_ids].sum(axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pa.Table.from_arrays(
        [
            pa.array(np.fromiter(texts, dtype=np.int64)[aligned.rows]),
            pa.array(aligned.texts),
            pa.array(["en"] * len(aligned.rows)),
            fixed_size_list(aligned.token_ids, pa.int32()),
            fixed_size_list(vectors.astype(np.float16), pa.float16()),
        ],
        schema=pairs_schema(recipe),
    )
    splits = np.array([assign_split(text, config.data.validation, config.data.test) for text in aligned.texts])
    pairs = folder / "pairs"
    for split in np.unique(splits):
        (pairs / f"split={split}").mkdir(parents=True)
        pq.write_table(table.filter(pa.array(splits == split)), pairs / f"split={split}" / "part-0.parquet")
    stats = {
        "rows": len(table),
        "samples_per_second": 123.4,
        "seconds": 5.0,
        "corpus": {"rows": 600, "seconds": 1.5},
    }
    (pairs / "_stats.json").write_text(json.dumps(stats))
    (pairs / "_SUCCESS").touch()
    return pairs


@pytest.fixture(scope="session")
def tiny_run(ray_cluster, tiny, tiny_pairs, tmp_path_factory):
    """One run of jobs/train.py's work on `tiny_pairs`: its folder and the record that it returned."""
    from jobs.train import train

    out = tmp_path_factory.mktemp("run") / "out"
    return out, train(tiny(), tiny_pairs, out, resume=False)


class JobProcess:
    """A job as a person starts it: a program with a process group and a Ray session of its own, on 2 CPUs."""

    def __init__(self, folder, arguments, environment=None, cwd=ROOT):
        # Short, since it holds Unix sockets; and every process of this session carries it in its environment.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="job", dir="/tmp"))
        self.log = folder / f"{self.ray_folder.name}.log"
        variables = own_ray_environment(self.ray_folder) | {
            "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}',
            **(environment or {}),
        }
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=cwd,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def members(self):
        """The processes of this session that are alive, the driver included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAY_TMPDIR") == str(self.ray_folder):
                    found.append(process)
            except psutil.Error:
                continue  # ended meanwhile, or somebody else's
        return found

    def kill(self):
        """SIGKILL to the driver and to all that it started; returns how many there were."""
        members = sorted(self.members(), key=lambda process: process.pid != self.process.pid)
        for process in members:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # followed another one
        self.process.wait(30)
        psutil.wait_procs(members, timeout=30)
        return len(members)

    def until(self, happened):
        """Waits until `happened()` is true, and fails if the job ends before."""
        deadline = time.monotonic() + WAIT_S
        while not happened():
            assert self.process.poll() is None, f"ended with {self.process.returncode} too early:\n{self.text()}"
            assert time.monotonic() < deadline, f"nothing happened in {WAIT_S} s:\n{self.text()}"
            time.sleep(0.02)

    def finish(self):
        """Waits for the end; returns exit code and output."""
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {WAIT_S} s:\n{self.text()}") from None
        return self.process.returncode, self.text()


@pytest.fixture
def start_job(tmp_path):
    """Returns a function that starts a job, such as `start_job("jobs/encode.py", "--out", folder)`.

    `environment=` adds variables, such as those of a hub on loopback; `cwd=` is where it is started.
    """
    started = []

    def start(*arguments, environment=None, cwd=ROOT):
        started.append(JobProcess(tmp_path, arguments, environment, cwd))
        return started[-1]

    yield start
    for job in started:
        job.kill()
        shutil.rmtree(job.ray_folder, ignore_errors=True)
