"""Files that are damaged, cut short, or changed while they are read: what is read before, and what is said."""

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


def read_until_broken(path, rows=1):
    """The ids that come before the dump breaks, and what is said."""
    found = []
    with pytest.raises(BrokenDump) as caught:
        for block in blocks_of(path, rows):
            found += block.ids.to_pylist()
    return found, str(caught.value)


def cut(path, bytes_left):
    os.truncate(path, bytes_left)


# Cut short


@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whole_rows_of_a_npy_that_was_cut_come_before_the_error(tmp_path, vectors, rows, order):
    path = tmp_path / "dump.npy"
    np.save(path, np.asarray(vectors, order=order))
    cut(path, path.stat().st_size - 40)  # less than two rows, of ten numbers more than one
    whole = len(vectors) - (2 if order == "C" else 10)
    found, said = read_until_broken(path, rows)
    assert found == list(range(whole))
    assert f"{path}: is damaged or cut short at row {whole} (it has {whole} of 23 rows); fetch it anew" in said


@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_whole_lines_of_json_that_was_cut_come_before_the_error(tmp_path, vectors, rows, suffix):
    path = tmp_path / f"dump{suffix}"
    lines = "".join(
        json.dumps({"id": f"i{row}", "embedding": each.tolist()}) + "\n" for row, each in enumerate(vectors)
    )
    if suffix == ".jsonl":
        path.write_text(lines[:-20])
    else:
        whole = gzip.compress(lines.encode())
        path.write_bytes(whole[: len(whole) * 2 // 3])
    found, said = read_until_broken(path, rows)
    assert found == [f"i{row}" for row in range(len(found))]
    assert len(found) == 22 if suffix == ".jsonl" else 5 < len(found) < 22
    assert f"is damaged or cut short at row {len(found)} (" in said and "the same command goes on" in said


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_whole_rows_of_csv_that_was_cut_come_before_the_error(tmp_path, vectors, rows):
    path = tmp_path / "dump.csv"
    lines = [f'{row},"{each.tolist()}",x\n' for row, each in enumerate(vectors)]
    path.write_text("id,embedding,text\n" + "".join(lines)[:-30])
    found, said = read_until_broken(path, rows)
    assert found == list(range(22)) and "cut short at row 22 (" in said


def test_row_groups_before_a_damaged_one_are_read(tmp_path, table):
    path = tmp_path / "dump.parquet"
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    raw = bytearray(path.read_bytes())
    start = column.data_page_offset
    raw[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(raw)
    found, said = read_until_broken(path)
    assert found == table["id"].to_pylist()[:10] and "cut short at row 10 (" in said


@pytest.mark.parametrize("name", ["dump.parquet", "dump.arrow", "dump.npz"])
def test_a_file_without_its_end_cannot_be_opened(tmp_path, table, name):
    path = tmp_path / name
    if name == "dump.parquet":
        pq.write_table(table, path)
    elif name == "dump.npz":
        np.savez(path, embedding=np.ones((50, 9)))
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    cut(path, path.stat().st_size - 50)
    with pytest.raises(BrokenDump, match=f"--vectors {path}: .*fetch it anew"):
        open_dump(str(path)).parts()


def test_batches_of_an_arrow_stream_that_was_cut_come_before_the_error(tmp_path, table):
    path = tmp_path / "dump.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    cut(path, path.stat().st_size - 60)
    found, said = read_until_broken(path)
    assert found == table["id"].to_pylist()[:20] and "cut short at row 20" in said


def test_a_damaged_npz_gives_its_whole_rows(tmp_path):
    path = tmp_path / "dump.npz"
    np.savez(path, embedding=np.arange(30_000, dtype=np.float32).reshape(-1, 3))
    raw = bytearray(path.read_bytes())
    raw[60_000] ^= 255
    path.write_bytes(raw)
    with pytest.raises(BrokenDump, match=r"dump.npz: is damaged or cut short at row \d+ \(Bad CRC"):
        list(blocks_of(path, 100))


# Changed while it is read


@pytest.mark.parametrize("name", ["dump.npy", "dump.npz", "dump.parquet", "dump.jsonl", "dump.csv", "dump.arrow"])
@pytest.mark.parametrize("change", ["grow", "touch", "remove"])
def test_a_file_that_changes_under_the_reader_ends_the_reading(tmp_path, table, name, change):
    path = tmp_path / name
    write(path, table)
    blocks = blocks_of(path, 5)
    assert len(next(blocks)) == 5
    if change == "grow":
        with open(path, "ab") as file:
            file.write(b"more")
    elif change == "touch":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
    with pytest.raises(BrokenDump, match=rf"{path}: (was changed|is gone).* row 5.*the same command goes on"):
        list(blocks)


def write(path, table):
    rows = [{**row, "embedding": list(row["embedding"])} for row in table.to_pylist()]
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".csv":
        path.write_text("id,embedding\n" + "\n".join(f'{row["id"]},"{row["embedding"]}"' for row in rows))
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    else:
        vectors = np.stack(table["embedding"].to_numpy())
        np.save(path, vectors) if path.suffix == ".npy" else np.savez(path, embedding=vectors)
