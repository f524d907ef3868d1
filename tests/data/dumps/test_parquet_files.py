"""Folders of Parquet files: their ids, their parts, what their names say."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.opening import DumpSettings, open_dump
from embinv.data.dumps.parquet_files import ParquetDump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


def test_ids_of_a_folder_are_strings_if_one_file_has_strings(tmp_path):
    pq.write_table(pa.table({"id": [1], "embedding": [[1.0]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "embedding": [[2.0]]}), tmp_path / "b.parquet")
    assert [block.ids.to_pylist() for block in blocks_of(tmp_path)] == [["1"], ["x"]]


def test_rows_without_ids_are_numbered_through_a_folder(tmp_path):
    for name in ("a", "b"):
        pq.write_table(pa.table({"embedding": [[1.0], [2.0]]}), tmp_path / f"{name}.parquet", row_group_size=1)
    assert [block.ids.to_pylist() for block in blocks_of(tmp_path, 2)] == [[0], [1], [2], [3]]
    with pytest.raises(ValueError, match=r"has no column of ids, while others have"):
        pq.write_table(pa.table({"id": [1], "embedding": [[1.0]]}), tmp_path / "c.parquet")
        list(blocks_of(tmp_path))


def test_a_large_file_is_several_parts_that_make_the_same_rows(tmp_path, table):
    pq.write_table(table.drop(["id"]), tmp_path / "dump.parquet", row_group_size=4)
    parts = ParquetDump(str(tmp_path / "dump.parquet"), DumpSettings(), part_rows=8).parts()
    assert [part.rows for part in parts] == [8, 8, 7]
    assert [part.name.partition(" ")[2] for part in parts][:2] == ["(row groups 0 to 1)", "(row groups 2 to 3)"]
    ids = [each for part in parts for block in part.blocks(3) for each in block.ids.to_pylist()]
    assert ids == list(range(23))


def test_what_a_folder_says_can_be_asked_for_by_name(tmp_path):
    (tmp_path / "split=test").mkdir()
    pq.write_table(pa.table({"embedding": [[1.0]], "a": [1]}), tmp_path / "split=test" / "p.parquet")
    (block,) = blocks_of(tmp_path, metadata=["split"])
    assert block.metadata.to_pydict() == {"split": ["test"]}


def test_files_of_other_lengths_of_vectors_are_refused(tmp_path):
    for width in (2, 3):
        kind = pa.list_(pa.float32(), width)
        pq.write_table(pa.table({"embedding": pa.array([[1.0] * width], kind)}), tmp_path / f"{width}.parquet")
    with pytest.raises(ValueError, match=r"3.parquet: its vectors have 3 numbers, those of .*2.parquet 2"):
        list(blocks_of(tmp_path))


def test_files_without_rows_are_left_out_whatever_the_types_of_their_columns(tmp_path):
    nothing = pa.table({"embedding": pa.nulls(0)})
    for name in ("a", "c"):
        pq.write_table(nothing, tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: column 'embedding' is null, expected lists of numbers"):
        list(blocks_of(tmp_path))
    pq.write_table(pa.table({"id": [7, 8], "embedding": [[1.0], [2.0]]}), tmp_path / "b.parquet")
    assert [block.ids.to_pylist() for block in blocks_of(tmp_path)] == [[7], [8]]


def test_an_empty_parquet_file_gives_no_blocks(tmp_path, table):
    pq.write_table(table.slice(0, 0), tmp_path / "dump.parquet")
    assert list(blocks_of(tmp_path / "dump.parquet")) == []
