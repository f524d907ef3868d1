import numpy as np
import pyarrow as pa
import pytest

from embinv.data.dumps.base import Block
from embinv.data.dumps.windows import bad_rows, checksum, windows
from tests.dumps import fake_dump


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 23, 100])
def test_windows_have_one_length_and_all_rows_in_order(rows):
    dump = fake_dump(23)
    [part] = dump.parts()
    found = list(windows(part, 5, rows))
    assert [window.rows for window, _ in found[:-1]] == [rows] * (len(found) - 1)
    assert [window.start for window, _ in found] == list(range(0, 23, rows))
    assert {window.part for window, _ in found} == {5}
    assert np.array_equal(np.concatenate([block.vectors for _, block in found]), part.vectors)
    assert [each for _, block in found for each in block.ids.to_pylist()] == part.ids
    assert [each for _, block in found for each in block.metadata["note"].to_pylist()] == part.texts


def test_metadata_is_not_read_unless_it_is_wanted():
    [part] = fake_dump(5).parts()
    assert [block.metadata for _, block in windows(part, 0, 2, metadata=False)] == [None] * 3
    assert part.asked == [False]


def test_a_window_does_not_depend_on_the_blocks_that_it_came_in():
    dump = fake_dump(23)
    [part] = dump.parts()
    before = [window for window, _ in windows(part, 0, 8)]
    part.pieces = (2, 7)
    assert [window for window, _ in windows(part, 0, 8)] == before


@pytest.mark.parametrize("change", ["number", "id", "order"])
def test_checksum_sees_every_change(change):
    vectors, ids = np.arange(12, dtype=np.float32).reshape(3, 4), ["a", "b", "c"]
    before = checksum(Block(pa.array(ids), vectors))
    assert checksum(Block(pa.array(ids), vectors.copy())) == before
    if change == "number":
        vectors[1, 2] = np.nextafter(vectors[1, 2], 9)
    elif change == "id":
        ids[2] = "d"
    else:
        vectors[[0, 1]] = vectors[[1, 0]]
    assert checksum(Block(pa.array(ids), vectors)) != before


def test_neighbouring_ids_are_told_apart():
    vectors = np.ones((2, 2), dtype=np.float32)
    assert checksum(Block(pa.array(["ab", "c"]), vectors)) != checksum(Block(pa.array(["a", "bc"]), vectors))


def test_bad_rows_are_named_with_what_is_wrong():
    vectors = np.ones((6, 3), dtype=np.float32)
    vectors[1, 2], vectors[2, 0], vectors[3], vectors[4, 1] = np.nan, -np.inf, 0.0, 3e38
    assert bad_rows(vectors) == {
        1: "holds NaN or infinity",
        2: "holds NaN or infinity",
        3: "is a zero vector",
        4: "has a norm that float32 cannot hold",
    }
    assert bad_rows(np.ones((4, 3), dtype=np.float32)) == {}
