"""Arrays that hold no vectors, objects that stay pickled, and the choice among several arrays."""

import os

import numpy as np
import pytest

from embinv.data.dumps.opening import DumpSettings, open_dump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


@pytest.mark.parametrize("array", [np.ones(3), np.ones((2, 3, 4)), np.array([["a"]]), np.ones((2, 2), complex)])
def test_a_npy_that_is_no_matrix_of_real_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "dump.npy", array)
    with pytest.raises(ValueError, match=r"expected an array \[N, D\] of real numbers, got .* of shape"):
        list(blocks_of(tmp_path / "dump.npy"))


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "dump.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "dump.npz", embedding=np.ones((1, 2)), notes=trap[0])
    with pytest.raises(ValueError, match="got object"):
        list(blocks_of(tmp_path / "dump.npy"))
    assert [block.metadata for block in blocks_of(tmp_path / "dump.npz")] == [None]
    with pytest.raises(ValueError, match="'notes' is object .* take it out of metadata"):
        list(blocks_of(tmp_path / "dump.npz", metadata=["notes"]))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "other",
    [np.zeros(2, "datetime64[Y]"), np.zeros(2, "datetime64[h]"), np.zeros(2, np.longdouble), np.zeros((2, 0))],
    ids=lambda other: f"{other.dtype}-{other.ndim}",
)
def test_arrays_that_arrow_has_no_type_for_are_left_out_with_a_warning(tmp_path, caplog, other):
    days = np.array(["2020-01-02", "2020-01-03"], "datetime64[D]")
    np.savez(tmp_path / "dump.npz", embedding=np.ones((2, 3)), other=other, days=days, big=np.array([1, 2], ">i4"))
    (block,) = blocks_of(tmp_path / "dump.npz", 9)
    assert block.metadata.to_pydict() == {"days": days.tolist(), "big": [1, 2]} and len(block) == 2
    assert "dump.npz: not read as metadata: other" in caplog.text
    with pytest.raises(ValueError, match=r"'other' is .* of shape .*take it out of metadata"):
        list(blocks_of(tmp_path / "dump.npz", metadata=["other"]))


def test_the_array_of_an_npz_is_chosen_by_name(tmp_path):
    np.savez(tmp_path / "dump.npz", a=np.ones((2, 3)), b=np.full((2, 4), 2.0), id=np.array(["x", "y"]))
    with pytest.raises(ValueError, match="several columns could hold the vectors; name one of a, b"):
        list(blocks_of(tmp_path / "dump.npz"))
    (block,) = blocks_of(tmp_path / "dump.npz", 9, name="b")
    assert block.vectors.tolist() == [[2.0] * 4] * 2 and block.ids.to_pylist() == ["x", "y"]
    assert block.metadata.to_pydict() == {"a": [[1.0] * 3] * 2}
