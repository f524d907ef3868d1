"""Folders of vector-io: indexes, namespaces, and the paths that different versions write."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump


def write(folder, indexes, **more):
    """Index -> namespace -> rows; each row is a vector of its number."""
    meta = {"version": "0.0.1", "file_structure": [], "author": "me", "exported_from": "pinecone", **more}
    meta["indexes"] = {}
    for index, namespaces in indexes.items():
        meta["indexes"][index] = []
        for namespace, rows in namespaces.items():
            place = f"{index}/{namespace or 'default'}.parquet"
            (folder / place).mkdir(parents=True)
            columns = {"key": [f"{namespace}{row}" for row in rows], "vec": [[float(row)] for row in rows]}
            pq.write_table(pa.table({**columns, "other": columns["vec"]}), folder / place / "1.parquet")
            meta["indexes"][index].append(
                {"namespace": namespace, "data_path": place, "vector_columns": ["vec", "other"], "dimensions": 1}
            )
    (folder / "VDF_META.json").write_text(json.dumps(meta))
    return str(folder)


def read(address, **settings):
    return [block for part in open_dump(address, DumpSettings(**settings)).parts() for block in part.blocks(10)]


def test_namespaces_of_an_index_are_read_in_order_and_named_in_the_metadata(tmp_path):
    first, second = read(write(tmp_path, {"docs": {"": [1, 2], "b": [3]}}, id_column="key"))
    assert first.ids.to_pylist() == ["1", "2"] and second.ids.to_pylist() == ["b3"]
    assert first.vectors.tolist() == [[1], [2]] and second.vectors.tolist() == [[3]]
    assert first.metadata.column_names == ["other"]
    assert second.metadata.to_pydict() == {"other": [[3]], "namespace": ["b"]}


def test_an_index_is_chosen_by_its_name(tmp_path):
    address = write(tmp_path, {"a": {"": [1]}, "b": {"": [2]}})
    assert read(address, name="b")[0].vectors.tolist() == [[2]]
    with pytest.raises(ValueError, match="holds several, a, b; choose the index with name"):
        read(address)


@pytest.mark.parametrize("path", ["../outside", "/etc", "docs/../../outside"])
def test_a_path_out_of_the_folder_is_refused(tmp_path, path):
    write(tmp_path, {"docs": {"": [1]}})
    text = (tmp_path / "VDF_META.json").read_text().replace("docs/default.parquet", path)
    (tmp_path / "VDF_META.json").write_text(text)
    with pytest.raises(ValueError, match="leads out of the folder"):
        read(str(tmp_path))


def test_files_that_are_missing_are_named(tmp_path):
    address = write(tmp_path, {"docs": {"": [1]}})
    (tmp_path / "docs").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="data_path 'docs/default.parquet' is not there; fetch the folder anew"):
        read(address)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"indexes": []}', '{"indexes": {"a": [{"namespace": ""}]}}'])
def test_a_meta_file_that_says_nothing_is_a_broken_dump(tmp_path, text):
    (tmp_path / "VDF_META.json").write_text(text)
    with pytest.raises(BrokenDump, match=r"--vectors .*VDF_META.json: .*; export the folder anew"):
        read(str(tmp_path))
