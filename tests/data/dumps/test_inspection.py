import numpy as np
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.inspection import inspect
from tests.dumps import FakeDump, fake_dump


def test_all_vectors_are_counted_and_described():
    dump = fake_dump(23, 7)
    told = []
    found = inspect(dump, 10, told.append)
    assert (found.rows, found.dim, found.bad) == (30, 16, 0)
    assert [(window.part, window.start, window.rows) for window in found.windows] == [
        (0, 0, 10),
        (0, 10, 10),
        (0, 20, 3),
        (1, 0, 7),
    ]
    assert told == sorted(told) and told[-1] == 30 and len(told) == 4
    found.require_good()
    whole = np.concatenate([part.vectors for part in dump.parts()])
    assert found.seen is not None
    assert found.seen.statistics.mean == pytest.approx(whole.mean(axis=0).tolist(), abs=1e-5)


def test_vectors_that_cannot_be_inverted_are_counted_named_and_left_out_of_the_statistics():
    dump = fake_dump(20, 10)
    whole = np.concatenate([part.vectors for part in dump.parts()])
    dump.parts()[0].vectors[4, 1] = np.nan
    dump.parts()[1].vectors[3] = 0
    found = inspect(dump, 8)
    assert (found.bad, [(each.row, each.id) for each in found.named]) == (2, [(4, "4"), (23, "23")])
    assert found.seen is not None
    mean = np.delete(whole, [4, 23], axis=0).mean(axis=0)
    assert found.seen.statistics.mean == pytest.approx(mean.tolist(), abs=1e-5)
    with pytest.raises(
        ValueError, match=r"row 4 holds NaN or infinity \(id 4\), row 23 is a zero vector \(id 23\); mend.*--skip-bad"
    ):
        found.require_good()


def test_a_dump_of_bad_vectors_alone_has_no_statistics():
    dump = fake_dump(5)
    dump.parts()[0].vectors[:] = 0
    found = inspect(dump, 8)
    assert (found.bad, found.seen) == (5, None)


def test_parts_of_two_dimensions_are_refused():
    dump = FakeDump([*fake_dump(5).parts(), *fake_dump(5, dim=9).parts()])
    with pytest.raises(ValueError, match=r"part 0 has vectors of 9 dimensions, those before it have 16"):
        inspect(dump, 8)


def test_a_dump_without_vectors_is_refused():
    with pytest.raises(ValueError, match="no vector was given"):
        inspect(fake_dump(0), 8)


def test_a_store_that_breaks_is_told():
    dump = fake_dump(20)
    dump.parts()[0].breaks_at = 9
    with pytest.raises(BrokenDump, match="connection was lost at row 9"):
        inspect(dump, 4)
