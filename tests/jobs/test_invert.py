"""jobs/invert.py: a dump goes through inverters on many workers, each window once."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.base import Block
from embinv.inverter import load_inverter
from jobs.invert import main
from jobs.invert_pipeline import packed, unpacked
from tests.fakes import hash_spec, tiny_checkpoint, unit_vectors, word_tokenizer
from tests.provenance_checks import require_provenance

ROWS = 90


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """An inverter, and a dump of two files."""
    folder = tmp_path_factory.mktemp("given")
    tiny_checkpoint(folder / "checkpoint", word_tokenizer(folder / "words"), hash_spec(16))
    (folder / "dump").mkdir()
    vectors = unit_vectors(ROWS, 16)
    for start, name in ((0, "a"), (50, "b")):
        rows = slice(start, 50 if name == "a" else ROWS)
        ids = [f"n{each}" for each in range(ROWS)][rows]
        columns = {"id": ids, "embedding": list(vectors[rows]), "tag": [name] * len(ids)}
        pq.write_table(pa.table(columns), folder / "dump" / f"{name}.parquet")
    return folder, vectors


def run(folder, out, *more, dump="dump"):
    files = ["--checkpoint", str(folder / "checkpoint"), "--vectors", str(folder / dump), "--out", str(out)]
    main([*files, "--window-rows", "16", "--precision", "float32", *more])


def read(out):
    return pa.concat_tables([pq.ParquetFile(file).read() for file in sorted(Path(out).glob("window-*.parquet"))])


def refused(folder, out, *more, dump="dump"):
    with pytest.raises(ValueError, match=".+") as caught:
        run(folder, out, *more, dump=dump)
    return str(caught.value)


def test_a_block_travels_whole():
    others = pa.table({"tag": ["a", None], "tags": [["x"], []]})
    block = Block(pa.array(["p", "q"]), np.arange(6, dtype=np.float32).reshape(2, 3), others)
    again = unpacked(packed(block))
    assert again.ids.equals(block.ids)
    assert np.array_equal(again.vectors, block.vectors)
    assert again.metadata is not None and again.metadata.equals(others)
    assert unpacked(packed(Block(pa.array([1, 2]), block.vectors))).metadata is None


def test_every_vector_gets_the_text_that_one_process_gives_it(ray_cluster, given, tmp_path, capsys):
    folder, vectors = given
    run(folder, tmp_path / "out", "--workers", "2")
    table = read(tmp_path / "out")
    assert table["id"].to_pylist() == [f"n{each}" for each in range(ROWS)]
    expected = load_inverter(folder / "checkpoint", precision="float32").invert(vectors)
    assert table["text"].to_pylist() == [each.text for each in expected]
    assert json.loads(table["metadata"][60].as_py()) == {"tag": "b"}
    stats = json.loads((tmp_path / "out" / "_stats.json").read_text())
    assert (stats["rows"], stats["without_text"], stats["recognition"]["verdict"]) == (ROWS, 0, "unknown")
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert f"{ROWS} texts in" in capsys.readouterr().out
    made = require_provenance(tmp_path / "out", "jobs/invert.py")
    assert made["cluster"]["hosts"] == 1 and made["seeds"] == {"seed": 0} and made["settings"]["workers"] == 2

    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("window-*")}
    assert len(before) == 4 + 3
    run(folder, tmp_path / "out")
    assert "all done before, 90 texts" in capsys.readouterr().out
    lost = sorted(before)[2]
    lost.unlink()
    run(folder, tmp_path / "out")
    again, floats = read(tmp_path / "out"), ["confidence", "probability", "cosine"]
    assert again.drop_columns(floats).equals(table.drop_columns(floats))
    for name in floats:  # another process may add in another order
        found, first = (np.array(each[name].to_pylist(), dtype=float) for each in (again, table))
        np.testing.assert_allclose(found, first, rtol=1e-5)
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("window-*")}
    assert [file for file in before if after[file] != before[file]] == [lost]

    assert "was begun with steps = 8, not 3" in refused(folder, tmp_path / "out", "--steps", "3")
    run(folder, tmp_path / "out", "--steps", "3", "--overwrite")
    expected = load_inverter(folder / "checkpoint", precision="float32").invert(vectors, steps=3)
    assert read(tmp_path / "out")["text"].to_pylist() == [each.text for each in expected]


def test_a_dump_that_changed_since_is_inverted_anew_where_it_changed(ray_cluster, given, tmp_path, capsys):
    folder, vectors = given
    changing = tmp_path / "dump"
    changing.mkdir()
    table = pa.table({"id": list(range(40)), "embedding": list(vectors[:40])})
    pq.write_table(table, changing / "a.parquet")
    common = ["--checkpoint", str(folder / "checkpoint"), "--vectors", str(changing), "--out", str(tmp_path / "out")]
    common += ["--window-rows", "16", "--precision", "float32"]
    main(common)
    before = read(tmp_path / "out")
    changed = vectors[:40].copy()
    changed[20] *= -1
    pq.write_table(pa.table({"id": list(range(40)), "embedding": list(changed)}), changing / "a.parquet")
    main(common)
    assert "1 windows are of an earlier state of the dump, and are gone" in capsys.readouterr().out
    after = read(tmp_path / "out")
    expected = load_inverter(folder / "checkpoint", precision="float32").invert(changed)
    assert after["text"].to_pylist() == [each.text for each in expected]
    assert after["text"].to_pylist()[:16] == before["text"].to_pylist()[:16]


def test_a_password_in_an_address_is_neither_taken_nor_printed(given, tmp_path, capsys):
    folder, _ = given
    with pytest.raises(ValueError, match="PGPASSWORD"):
        run(folder, tmp_path / "out", "--vectors", "postgresql://me:hush@localhost/db")
    said = capsys.readouterr()
    assert "hush" not in said.out + said.err


def test_what_cannot_be_done_is_told_before_anything_is_written(given, tmp_path):
    folder, vectors = given
    spoilt = vectors.copy()
    spoilt[7] = 0
    np.save(folder / "bad.npy", spoilt)
    np.save(folder / "wide.npy", unit_vectors(5, 9))
    out = tmp_path / "out"
    assert "row 7 is a zero vector (id 7)" in refused(folder, out, dump="bad.npy")
    assert "they have 9 dimensions, those of hash have 16" in refused(folder, out, dump="wide.npy")
    assert "no such file" in refused(folder, out, dump="absent")
    assert "strategy" in refused(folder, out, "--strategy", "beam")
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "is not empty and holds no texts of ours" in refused(folder, out)
    assert "no inversion made notes.txt" in refused(folder, out, "--overwrite")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_with_no_id_lost_and_none_twice(start_job, given, tmp_path):
    folder, _ = given
    rows, window = 4096, 128
    np.save(tmp_path / "v.npy", unit_vectors(rows, 16))
    out = tmp_path / "out"
    command = ["jobs/invert.py", "--checkpoint", folder / "checkpoint", "--vectors", tmp_path / "v.npy", "--out", out]
    command += ["--window-rows", window, "--strategy", "euler", "--steps", "150"]

    job = start_job(*map(str, command))
    job.until(lambda: len(list(out.glob("window-*.parquet"))) >= rows // window // 2)
    assert job.kill() > 3  # driver, raylet, GCS and at least one worker
    assert not (out / "_SUCCESS").exists()
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("window-*.parquet")}
    assert rows // window // 2 <= len(before) < rows // window

    code, output = start_job(*map(str, command)).finish()
    assert code == 0, output
    assert f"going on: {len(before) * window:,} of {rows:,} texts are inverted" in output and "Traceback" not in output
    assert read(out)["id"].to_pylist() == list(range(rows))
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    assert all((out / name).stat().st_mtime_ns == then for name, then in before.items())
