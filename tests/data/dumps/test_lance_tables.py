"""Tables of LanceDB: which one, and as of when."""

import shutil

import lancedb
import pyarrow as pa
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump


def fill(folder, **tables):
    database = lancedb.connect(folder)
    for name, rows in tables.items():
        vectors = pa.array([[float(row), 1.5] for row in range(rows)], pa.list_(pa.float16(), 2))
        database.create_table(name, pa.table({"vector": vectors, "key": [f"k{row}" for row in range(rows)]}))
    return str(folder)


def ids_of(address, rows=3, **settings):
    (part,) = open_dump(address, DumpSettings(**settings)).parts()
    return [each for block in part.blocks(rows) for each in block.ids.to_pylist()]


def test_a_table_is_chosen_by_its_name_or_its_folder(tmp_path):
    address = fill(tmp_path, few=2, many=5)
    assert ids_of(address, name="few") == [0, 1]
    assert ids_of(f"{address}/many.lance", id_column="key") == [f"k{row}" for row in range(5)]
    with pytest.raises(ValueError, match="holds several, few, many; choose the table with name"):
        ids_of(address)
    with pytest.raises(ValueError, match="no table 'none', it has few, many; mend name"):
        ids_of(address, name="none")


def test_rows_are_those_of_the_version_that_was_opened(tmp_path):
    (part,) = open_dump(fill(tmp_path, docs=4)).parts()
    table = lancedb.connect(tmp_path).open_table("docs")
    table.add(table.to_arrow())
    table.delete("key = 'k1'")
    assert [block.vectors[:, 0].tolist() for block in part.blocks(3)] == [[0, 1, 2], [3]]


def test_a_table_that_is_gone_or_damaged_is_said(tmp_path):
    address = fill(tmp_path, docs=4)
    (part,) = open_dump(address).parts()
    shutil.rmtree(tmp_path / "docs.lance" / "data")
    with pytest.raises(BrokenDump, match=r"\(docs\): is damaged or cut short at row 0"):
        list(part.blocks(3))
    shutil.rmtree(tmp_path / "docs.lance" / "_versions")
    with pytest.raises(BrokenDump, match=r"docs.lance: is damaged or cut short"):
        open_dump(address).parts()
    shutil.rmtree(tmp_path / "docs.lance")
    with pytest.raises(BrokenDump, match=r"\(docs\): is damaged or cut short at row 0"):
        list(part.blocks(3))
