"""Folders of Qdrant's local mode: collections, named vectors, ids; and that nothing in them is run."""

import os
import pickle
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import QdrantClient, models

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump

SPACE = models.VectorParams(size=2, distance=models.Distance.COSINE)


def write(folder, name, points, space=SPACE, **more):
    client = QdrantClient(path=str(folder))
    client.create_collection(name, space, **more)
    client.upsert(name, [models.PointStruct(id=i, vector=v, payload=p) for i, v, p in points])
    client.close()


def read(folder, rows=10, **settings):
    (part,) = open_dump(str(folder), DumpSettings(**settings)).parts()
    return list(part.blocks(rows))


def storage(folder, name):
    return closing(sqlite3.connect(folder / "collection" / name / "storage.sqlite", isolation_level=None))


def test_ids_are_integers_if_all_are_and_strings_else(tmp_path):
    own = str(uuid.UUID(int=9))
    write(tmp_path, "numbers", [(2, [1, 2], None), (1, [3, 4], None)])
    write(tmp_path, "mixed", [(2, [1, 2], None), (own, [3, 4], None)])
    write(tmp_path, "huge", [(2**64 - 1, [1, 2], None)])
    assert read(tmp_path, name="numbers")[0].ids.equals(pa.array([2, 1]))
    assert [block.ids.to_pylist() for block in read(tmp_path, 1, name="mixed")] == [["2"], [own]]
    assert read(tmp_path, name="huge")[0].ids.to_pylist() == [str(2**64 - 1)]


def test_vectors_come_as_they_were_written_and_payloads_as_metadata(tmp_path):
    write(tmp_path, "docs", [(1, [3, 4], {"a": {"b": [1]}}), (2, [1, 0], None), (3, [1, 1], {"c": "x"})])
    (block,) = read(tmp_path)
    assert block.vectors.tolist() == [[3, 4], [1, 0], [1, 1]]
    assert block.metadata.to_pydict() == {"a": [{"b": [1]}, None, None], "c": [None, None, "x"]}
    assert read(tmp_path, metadata=["c"])[0].metadata.to_pydict() == {"c": [None, None, "x"]}


def test_a_field_that_no_point_has_is_warned_of_once_all_are_read(tmp_path, caplog):
    write(tmp_path, "docs", [(1, [3, 4], {"a": 1}), (2, [1, 0], None), (3, [1, 1], {"late": None})])
    read(tmp_path, 1)
    read(tmp_path, 1, metadata=["a", "late"])
    assert caplog.text == ""
    found = read(tmp_path, 1, metadata=["a", "typo"])
    assert [block.metadata["typo"].to_pylist() for block in found] == [[None]] * 3
    assert "(docs): no row has 'typo'; mend metadata" in caplog.text


def test_a_vector_is_chosen_by_its_name(tmp_path):
    both = {"a": SPACE, "b": models.VectorParams(size=3, distance=models.Distance.DOT)}
    sparse = models.SparseVector(indices=[1], values=[2.0])
    points = [(1, {"a": [1, 2], "b": [1, 2, 3], "s": sparse}, None)]
    write(tmp_path, "docs", points, both, sparse_vectors_config={"s": models.SparseVectorParams()})
    assert read(tmp_path, column="b")[0].vectors.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="several columns could hold the vectors; name one of a, b with column"):
        read(tmp_path)


def test_a_point_without_the_vector_is_named(tmp_path):
    write(tmp_path, "docs", [(1, {"a": [1, 2]}, None), (2, {}, None)], {"a": SPACE})
    with pytest.raises(ValueError, match=r"\(docs\): row 1 has no 'a', or null"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "holds several, a, b; choose the collection with name"), ({"name": "c"}, "no collection 'c', it has a, b")],
)
def test_a_collection_is_chosen_by_its_name(tmp_path, settings, message):
    for name in ("a", "b"):
        write(tmp_path, name, [(1, [1, 2], None)])
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **settings)


def test_vectors_without_names_are_not_asked_for_by_name(tmp_path):
    write(tmp_path, "docs", [(1, [1, 2], None)])
    with pytest.raises(ValueError, match=r"\(docs\): its vectors have no names; leave column out"):
        read(tmp_path, column="a")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_something_ends_the_reading_and_runs_nothing(tmp_path):
    write(tmp_path, "docs", [(each, [1, 2], None) for each in range(3)])
    with storage(tmp_path, "docs") as opened:
        trap = pickle.dumps(Trap(str(tmp_path / "sprung")))
        opened.execute("UPDATE points SET point = ? WHERE rowid = 3", [trap])
    found = []
    with pytest.raises(BrokenDump, match=r"at row 2 \(it names posix.mkdir, which is no part of a point\)"):
        (part,) = open_dump(str(tmp_path)).parts()
        for block in part.blocks(1):
            found += block.ids.to_pylist()
    assert found == [0, 1] and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", [b"", b"\x80\x04N.", b"\x80\x04]\x94.", b"garbage"])
def test_a_point_that_is_none_is_a_damage(tmp_path, value):
    write(tmp_path, "docs", [(1, [1, 2], None)])
    with storage(tmp_path, "docs") as opened:
        opened.execute("UPDATE points SET point = ?", [value])
    with pytest.raises(BrokenDump, match="is damaged or cut short at row 0"):
        read(tmp_path)


def test_a_collection_that_is_written_to_while_it_is_read_ends_the_reading(tmp_path):
    write(tmp_path, "docs", [(each, np.ones(2).tolist(), {"a": "x" * 5000}) for each in range(5)])
    (part,) = open_dump(str(tmp_path)).parts()
    with storage(tmp_path, "docs") as opened:
        opened.execute("DELETE FROM points WHERE rowid = 1")
    with pytest.raises(BrokenDump, match="was changed while it was read"):
        list(part.blocks(2))


def test_a_reading_that_one_thread_began_another_may_end(tmp_path):
    write(tmp_path, "docs", [(each, [1, 2], None) for each in range(5)])
    (part,) = open_dump(str(tmp_path)).parts()
    blocks = part._read(2, True)
    with ThreadPoolExecutor(1) as reader:
        assert len(reader.submit(next, blocks).result()) == 2
    blocks.close()
    assert sum(map(len, part.blocks(2))) == 5
