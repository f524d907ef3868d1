"""jobs/encode.py is killed and goes on: no row is lost, none stands twice, and 2 CPUs are enough.

Ray Data's checkpoint does the work, and has traps that jobs/encode.py steers around (seen with ray 2.60):

1. It skips rows of `read_*` sources only; what comes from `from_items` or `from_arrow` is written again without a
   word. So texts are Parquet shards before they are encoded.
2. With `delete_checkpoint_on_success`, its default, a second run after a success writes everything twice. So the ids
   stay until our own statistics stand, and those end a second run before Ray is asked.
3. `SaveMode.OVERWRITE` deletes what was committed and then skips it. So the mode is `APPEND`.
4. Going on adds a filter actor that wants a whole CPU, and tasks that read and write want another. On 2 CPUs, an
   encoder that reserves even half a CPU leaves too little, and the job waits for ever. So the encoders reserve
   next to nothing, nothing at all on a small machine, and say to torch how many threads they run.
5. The ids that are done lie in the memory of each filter actor. So they are int64, and not texts.
6. What a crash takes back is a write task, and `read_parquet` merges small blocks into large ones before they are
   written. So jobs/shards.py reads each window of data.shard_rows rows as a block that nothing merges.
7. The ids must outlive the output folder's content and no longer: they lie beside it, and are thrown away if the
   output is gone.
"""

import json

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from embinv.data.alignment import align
from embinv.data.tokenizer import TextTokenizer

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

ROWS, SHARD_ROWS = 3000, 256


def committed(out):
    """Rows whose ids Ray Data's checkpoint holds for good."""
    ids = out.with_name(f".{out.name}.progress") / "ids"
    try:
        files = [file for file in ids.glob("*.parquet") if ".pending" not in file.name]
        return sum(pq.read_metadata(file).num_rows for file in files)
    except (OSError, ValueError):
        return 0  # one is being renamed or written just now


def test_a_killed_run_goes_on_with_no_row_lost_and_none_twice(start_job, write_texts, minilm, tmp_path):
    texts, out = tmp_path / "texts", tmp_path / "pairs"
    written = write_texts(texts, ROWS, shard_rows=1000)
    settings = ("data.seq_len=16", f"data.shard_rows={SHARD_ROWS}")
    command = ["jobs/encode.py", "--config", "configs/minilm.yaml", "--texts", texts, "--out", out]
    command += [part for setting in settings for part in ("--set", setting)]

    job = start_job(*command)
    job.until((out / "settings.yaml").exists)
    job.kill()  # before the first row

    job = start_job(*command)
    job.until(lambda: committed(out) >= ROWS // 2)
    assert job.kill() > 3  # driver, raylet, GCS and at least one worker
    assert job.members() == []
    assert not (out / "_stats.json").exists()
    before = committed(out)
    assert ROWS // 2 <= before < ROWS

    code, output = start_job(*command).finish()
    assert code == 0, output
    assert f"going on: {before:,} of {ROWS:,} texts are encoded" in output

    table = pads.dataset(sorted(out.rglob("*.parquet")), format="parquet").to_table().sort_by("id")
    found = {row["id"]: (row["text"], row["token_ids"]) for row in table.drop_columns(["embedding"]).to_pylist()}
    assert len(found) == len(table)  # none twice
    config = minilm(*settings)
    aligned = align(list(written.values()), TextTokenizer(config.tokenizer).fast, 16, config.data.min_tokens)
    ids = [list(written)[row] for row in aligned.rows]
    expected = zip(aligned.texts, aligned.token_ids.tolist(), strict=True)
    assert found == dict(zip(ids, expected, strict=True))  # what an unbroken run must give: none lost
    stats = json.loads((out / "_stats.json").read_text())
    assert stats["rows"] == sum(stats["splits"].values()) == len(found)
    assert sum(stats["dropped"].values()) == ROWS - len(found)
    assert not out.with_name(".pairs.progress").exists()
