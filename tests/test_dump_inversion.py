import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.inspection import inspect
from embinv.data.dumps.windows import Window
from embinv.decoding.options import DecodingOptions
from embinv.dump_inversion import invert_here, invert_window
from embinv.dump_texts import DumpRun, Texts, join
from embinv.inversion import Inversion
from tests.dumps import fake_dump

ROWS = 4
RUN = DumpRun(
    dump="fake",
    settings={},
    weights="w",
    calibration=None,
    strategy="confidence",
    steps=8,
    options=DecodingOptions(),
    seed=0,
    precision="float32",
    cosine=False,
    refine_steps=0,
    refine_beam=4,
    corrector=None,
    window_rows=ROWS,
)


class Echo:
    """Writes down of each vector what tells it from others; notes how many it was given."""

    def __init__(self):
        self.given = 0

    def __call__(self, vectors):
        self.given += len(vectors)
        return [Inversion(self.text(vector), [1], [0.5], 0.25, probability=0.5) for vector in vectors]

    @staticmethod
    def text(vector):
        return f"{vector[0]:.6f} {vector[1]:.6f}"


def run(dump, texts, echo=None, **changes):
    """Inverts what is to be inverted; returns the inspection."""
    found = inspect(dump, ROWS)
    wanted, _ = texts.begin(RUN.model_copy(update=changes), found)
    invert_here(dump, wanted, texts, echo or Echo(), ROWS, lambda window: None)
    return found


@pytest.fixture
def texts(tmp_path):
    return Texts(tmp_path / "texts")


def read(texts, tmp_path):
    join(texts, tmp_path / "all.parquet")
    return pq.read_table(tmp_path / "all.parquet").to_pylist()


def expected(dump):
    return [
        (number, Echo.text(vector), json.dumps({"note": note}))
        for part in dump.parts()
        for number, vector, note in zip(part.ids, part.vectors, part.texts, strict=True)
    ]


def written(texts, tmp_path):
    return [(row["id"], row["text"], row["metadata"]) for row in read(texts, tmp_path)]


def test_every_vector_gets_its_text_in_the_dumps_order(texts, tmp_path):
    dump = fake_dump(11, 6)
    run(dump, texts)
    assert written(texts, tmp_path) == expected(dump)
    first = read(texts, tmp_path)[0]
    assert (first["confidence"], first["probability"], first["cosine"]) == (0.25, 0.5, None)


def test_what_is_done_is_not_done_again(texts, tmp_path):
    dump, echo = fake_dump(11), Echo()
    found = run(dump, texts, echo)
    before = {file: file.stat().st_mtime_ns for file in texts.files()}
    assert texts.todo(found.windows) == []
    run(dump, texts, echo)
    assert echo.given == 11
    assert {file: file.stat().st_mtime_ns for file in texts.files()} == before


def test_a_store_that_breaks_leaves_what_was_done_and_the_rest_follows(texts, tmp_path):
    dump, echo = fake_dump(20), Echo()
    found = inspect(dump, ROWS)
    dump.parts()[0].breaks_at = 10
    with pytest.raises(BrokenDump, match="connection was lost"):
        invert_here(dump, texts.begin(RUN, found)[0], texts, echo, ROWS, lambda window: None)
    assert len(texts.files()) == 3
    dump.parts()[0].breaks_at = None
    run(dump, texts, echo)
    assert echo.given == 20
    assert written(texts, tmp_path) == expected(dump)


def test_a_dump_that_changes_while_it_is_read_is_told_and_what_changed_is_done_anew(texts, tmp_path):
    dump, echo = fake_dump(20), Echo()
    found = inspect(dump, ROWS)
    dump.parts()[0].vectors[9] += 1.0
    with pytest.raises(BrokenDump, match=r"changed while it was read; what was done is kept: run the same command"):
        invert_here(dump, texts.begin(RUN, found)[0], texts, echo, ROWS, lambda window: None)
    assert echo.given == 8
    dump.parts()[0].vectors[0] += 1.0  # of what was done before
    run(dump, texts, echo)
    assert echo.given == 8 + 16
    assert written(texts, tmp_path) == expected(dump)


def test_a_dump_that_became_shorter_leaves_nothing_of_what_is_gone(texts, tmp_path):
    dump = fake_dump(20, 7)
    run(dump, texts)
    dump.given = dump.given[:1]
    run(dump, texts)
    assert written(texts, tmp_path) == expected(dump)
    found = inspect(fake_dump(20, 7), ROWS)
    with pytest.raises(BrokenDump, match="changed while it was read"):
        invert_here(dump, texts.begin(RUN, found)[0], texts, Echo(), ROWS, lambda window: None)


def test_half_a_file_counts_for_nothing(texts, tmp_path):
    dump, echo = fake_dump(8), Echo()
    run(dump, texts, echo)
    file = texts.files()[0]
    file.write_bytes(file.read_bytes()[:-20])
    run(dump, texts, echo)
    assert echo.given == 12
    assert written(texts, tmp_path) == expected(dump)


def test_a_vector_that_cannot_be_inverted_has_no_text_and_keeps_its_place(texts, tmp_path):
    dump = fake_dump(9)
    dump.parts()[0].vectors[5] = np.nan
    run(dump, texts)
    rows = read(texts, tmp_path)
    assert [row["id"] for row in rows if row["text"] is None] == [5]
    assert [row["id"] for row in rows] == list(range(9))


def test_metadata_is_json_whatever_it_holds(texts, tmp_path):
    import datetime

    import pyarrow as pa

    from embinv.data.dumps.base import Block

    others = pa.table(
        {
            "score": [float("nan"), 0.5],
            "when": pa.array([datetime.date(2026, 1, 2), None]),
            "far": pa.array([253402300800 + 86400, None], pa.timestamp("s")),
            "tags": [["a", "ü"], []],
            "own": [{"x": 1}, {"x": None}],
        }
    )
    block = Block(pa.array(["p", "q"]), np.ones((2, 3), dtype=np.float32), others)
    texts.out.mkdir()
    invert_window(texts, Window(0, 0, 0, 2, 1), block, Echo())
    found = [json.loads(row["metadata"]) for row in read(texts, tmp_path)]
    assert found == [
        {"score": None, "when": "2026-01-02", "far": "10000-01-02 00:00:00", "tags": ["a", "ü"], "own": {"x": 1}},
        {"score": 0.5, "when": None, "far": None, "tags": [], "own": {"x": None}},
    ]


def test_a_folder_is_whole_only_when_all_its_windows_are_there(texts, tmp_path):
    dump = fake_dump(11, 6)
    found = run(dump, texts)
    assert not texts.is_whole and texts.stats() is None
    lost = texts.files()[1]
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ValueError, match=r"1 of 5 windows are not there any more"):
        texts.finish(found, {"verdict": "alike"}, 1.0)
    lost.write_bytes(kept)
    stats = texts.finish(found, {"verdict": "alike"}, 1.0)
    assert (stats["rows"], stats["calibrated"], stats["expected_nearly_right"]) == (17, 17, 8.5)
    assert texts.stats() == stats
    dump.given = dump.given[:1]  # whole windows are gone
    wanted, gone = texts.begin(RUN, inspect(dump, ROWS))
    assert (wanted, gone) == ([], 2)
    assert not texts.is_whole


def test_texts_of_two_runs_are_not_mixed(texts):
    run(fake_dump(11), texts)
    with pytest.raises(ValueError, match=r"was begun with steps = 8, not 3; choose another one, or give --overwrite"):
        run(fake_dump(11), texts, steps=3)
    with pytest.raises(ValueError, match=r"was begun with calibration = None, not 'c'"):
        run(fake_dump(11), texts, calibration="c")


def test_only_what_an_inversion_made_is_deleted(texts):
    run(fake_dump(11), texts)
    (texts.out / ".run.json.partial").write_text("")  # a kill left it
    (texts.out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no inversion made notes.txt in it; move it away"):
        texts.begin(RUN, inspect(fake_dump(11), ROWS), overwrite=True)
    assert len(texts.files()) == 3
    (texts.out / "notes.txt").unlink()
    wanted, _ = texts.begin(RUN, inspect(fake_dump(11), ROWS), overwrite=True)
    assert len(wanted) == 3


def test_what_a_kill_left_of_a_beginning_is_no_strangers(texts):
    texts.out.mkdir()
    (texts.out / ".run.json.partial").write_text("{")
    run(fake_dump(11), texts)
    assert len(texts.files()) == 3


def test_a_strangers_folder_is_left_alone(texts):
    texts.out.mkdir()
    (texts.out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no texts of ours"):
        run(fake_dump(11), texts)


def test_many_parts_stay_in_order(texts):
    texts.out.mkdir()
    numbers = [100_000, 99_999, 7]
    for number in numbers:
        block = next(fake_dump(3).parts()[0].blocks(3))
        invert_window(texts, Window(number, 0, 0, 3, 1), block, Echo())
    assert [int(file.stem.split("-")[1]) for file in texts.files()] == sorted(numbers)
