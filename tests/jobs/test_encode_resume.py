"""jobs/encode.py is killed and goes on: no row is lost, none stands twice, and 2 CPUs are enough.

Ray Data's checkpoint does the work, and has traps that jobs/encode.py steers around (seen with ray 2.60):

1. It skips rows of `read_*` sources only; what comes from `from_items` or `from_arrow` is written again without a
   word. So texts are Parquet shards before they are encoded.
2. With `delete_checkpoint_on_success`, its default, a second run after a success writes everything twice. So the ids
   stay until our own statistics stand, and those end a second run before Ray is asked.
3. `SaveMode.OVERWRITE` deletes what was committed and then skips it. So the mode is `APPEND`.
4. Going on adds a filter actor that wants a CPU. Beside an encoder that holds a whole one, on 2 CPUs, nothing is left
   to read and write with, and the job hangs for ever. So the encoder asks for half a CPU.
5. The ids that are done lie in the memory of each filter actor. So they are int64, and not texts.
6. What a crash takes back is a write task, and small blocks are merged into large ones before they are written. So
   `repartition(target_num_rows_per_block=...)` sets their size.
7. The ids must outlive the output folder's content and no longer: they lie beside it, and are thrown away if the
   output is gone.
"""

import json

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROWS, SHARD_ROWS = 3000, 256


@pytest.fixture(scope="module")
def texts(write_texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "texts"
    write_texts(folder, ROWS, shard_rows=1000)
    return folder


@pytest.fixture
def encode(start_job, texts):
    """Starts jobs/encode.py on the records."""

    def start(out):
        settings = ("data.seq_len=16", f"data.shard_rows={SHARD_ROWS}")
        return start_job(
            "jobs/encode.py", "--config", "configs/minilm.yaml", "--texts", texts, "--out", out,
            *(part for setting in settings for part in ("--set", setting)),
        )  # fmt: skip

    return start


def committed(out):
    """Rows whose ids Ray Data's checkpoint holds for good."""
    ids = out.with_name(f".{out.name}.progress") / "ids"
    try:
        files = [file for file in ids.glob("*.parquet") if ".pending" not in file.name]
        return sum(pq.read_metadata(file).num_rows for file in files)
    except (OSError, ValueError):
        return 0  # one is being renamed or written just now


def rows(out):
    """All pairs but their vectors, sorted by id."""
    table = pads.dataset(sorted(out.rglob("*.parquet")), format="parquet", partitioning="hive").to_table()
    return table.drop_columns(["embedding"]).sort_by("id").to_pylist()


def test_a_killed_run_goes_on_with_no_row_lost_and_none_twice(encode, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, output = encode(whole).finish()
    assert code == 0, output

    job = encode(broken)
    job.until(lambda: committed(broken) >= ROWS // 2)
    assert job.kill() > 3  # driver, raylet, GCS and at least one worker
    assert job.members() == []
    assert not (broken / "_stats.json").exists()
    before = committed(broken)
    assert ROWS // 2 <= before < ROWS

    again = encode(broken)
    code, output = again.finish()
    assert code == 0, output
    assert f"going on: {before:,} of {ROWS:,} texts are encoded" in output

    found = rows(broken)
    ids = [row["id"] for row in found]
    assert len(ids) == len(set(ids))
    assert found == rows(whole)
    stats = [json.loads((folder / "_stats.json").read_text()) for folder in (whole, broken)]
    assert stats[0]["rows"] == stats[1]["rows"] == len(found)
    assert stats[0]["splits"] == stats[1]["splits"]
    assert stats[0]["dropped"] == stats[1]["dropped"]


def test_killed_again_and_again_it_gets_there(encode, tmp_path):
    """Whatever the moment: before the first file, between files, and while the second sitting filters."""
    out = tmp_path / "pairs"
    for share in (0.0, 0.1, 0.5):
        job = encode(out)
        job.until(lambda share=share: (out / "settings.yaml").exists() and committed(out) >= share * ROWS)
        job.kill()
    code, output = encode(out).finish()
    assert code == 0, output
    ids = [row["id"] for row in rows(out)]
    assert len(ids) == len(set(ids)) == json.loads((out / "_stats.json").read_text())["rows"]
    assert len(ids) + json.loads((out / "_stats.json").read_text())["dropped"]["too_few_tokens"] == ROWS
    assert not out.with_name(".pairs.progress").exists()
