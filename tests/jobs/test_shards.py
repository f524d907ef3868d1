"""Windows of a corpus: every row in one of them, none too large, and broken files set aside."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.shards import TEXT_SCHEMA, ShardSource, Window, list_windows, read_window


class Noted(dict):
    """What was rejected: file -> reason."""

    def __call__(self, file, reason):
        self[file] = reason


@pytest.fixture
def rejected():
    return Noted()


def texts(rows, start=0):
    ids = range(start, start + rows)
    return pa.table({"id": ids, "text": [f"text {i}" for i in ids], "lang": ["en"] * rows}, schema=TEXT_SCHEMA)


def write(path, table, **options):
    pq.write_table(table, path, **options)
    return path


def damage(path):
    """Overwrites the pages and leaves the footer."""
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)


@pytest.mark.parametrize("window_rows", [1, 7, 10, 24, 25, 1000])
def test_windows_hold_every_row_once_in_order_and_none_too_many(tmp_path, rejected, window_rows):
    shards = [write(tmp_path / "a.parquet", texts(24), row_group_size=10), write(tmp_path / "b.parquet", texts(5, 24))]
    windows = list_windows(shards, window_rows, rejected)
    tables = [table for window in windows for table in read_window(window, rejected)]
    assert [len(table) for table in tables] == [window.rows for window in windows]
    assert max(map(len, tables)) <= window_rows
    assert pa.concat_tables(tables).equals(texts(29))
    assert rejected == {}


def test_windows_are_as_few_as_row_groups_and_the_limit_allow(tmp_path, rejected):
    shard = write(tmp_path / "a.parquet", texts(24), row_group_size=10)
    found = [(window.row_group, window.start, window.rows) for window in list_windows([shard], 8, rejected)]
    assert found == [(0, 0, 8), (0, 8, 2), (1, 0, 8), (1, 8, 2), (2, 0, 4)]


def test_bytes_of_windows_add_up_to_those_of_the_files(tmp_path, rejected):
    shard = write(tmp_path / "a.parquet", texts(1000))
    source = ShardSource(list_windows([shard], 64, rejected), rejected)
    size = pq.read_metadata(shard).row_group(0).total_byte_size
    assert size - 16 <= source.estimate_inmemory_data_size() <= size  # each of 16 windows is rounded down


def test_a_file_of_no_rows_gives_no_window(tmp_path, rejected):
    assert list_windows([write(tmp_path / "a.parquet", texts(0))], 8, rejected) == []
    assert rejected == {}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet at all, but rather long, and so on"])
def test_a_file_without_a_footer_is_set_aside_and_the_others_stay(tmp_path, rejected, content):
    (tmp_path / "a.parquet").write_bytes(content)
    shards = [tmp_path / "a.parquet", write(tmp_path / "b.parquet", texts(3)), tmp_path / "gone.parquet"]
    assert [window.file for window in list_windows(shards, 8, rejected)] == [str(tmp_path / "b.parquet")]
    assert list(rejected) == [str(tmp_path / "a.parquet"), str(tmp_path / "gone.parquet")]
    assert all(rejected.values())


def only(tables):
    [table] = tables
    return table


def test_a_file_whose_pages_are_damaged_gives_no_rows_and_is_set_aside(tmp_path, rejected):
    shard = write(tmp_path / "a.parquet", texts(1000))
    windows = list_windows([shard], 2000, rejected)
    damage(shard)
    assert only(read_window(windows[0], rejected)).equals(TEXT_SCHEMA.empty_table())
    assert list(rejected) == [str(shard)] and rejected[str(shard)]


def test_a_file_that_went_away_meanwhile_is_set_aside(tmp_path, rejected):
    window = Window(str(tmp_path / "gone.parquet"), 0, 0, 5, 100)
    assert only(read_window(window, rejected)).equals(TEXT_SCHEMA.empty_table())
    assert list(rejected) == [window.file]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array(["a", "b"])),
        ("text", pa.array([[1], [2]])),
        ("id", None),
        ("text", None),
        ("lang", None),
    ],
)
def test_a_file_of_other_columns_is_set_aside(tmp_path, rejected, column, values):
    table = texts(2).drop_columns([column])
    if values is not None:
        table = table.append_column(column, values)
    shard = write(tmp_path / "a.parquet", table)
    [window] = list_windows([shard], 8, rejected)
    assert only(read_window(window, rejected)).equals(TEXT_SCHEMA.empty_table())
    assert list(rejected) == [str(shard)] and rejected[str(shard)]


def test_columns_of_like_types_are_read_and_others_passed_over(tmp_path, rejected):
    table = texts(3)
    like = pa.table(
        {
            "lang": table["lang"].cast(pa.large_string()).dictionary_encode(),
            "more": [1.0, 2.0, 3.0],
            "text": table["text"].cast(pa.large_string()),
            "id": table["id"].cast(pa.int32()),
        }
    )
    [window] = list_windows([write(tmp_path / "a.parquet", like)], 8, rejected)
    assert only(read_window(window, rejected)).equals(table)
    assert rejected == {}


def test_each_window_is_one_read_task_that_travels(tmp_path):
    shard = write(tmp_path / "a.parquet", texts(24))
    tasks = ShardSource(list_windows([shard], 10, print), print).get_read_tasks(parallelism=1)
    found = [table for task in tasks for table in pickle.loads(pickle.dumps(task))()]  # noqa: S301
    assert np.concatenate([table["id"] for table in found]).tolist() == list(range(24))
    assert [len(table) for table in found] == [10, 10, 4]
    assert [task.metadata.input_files for task in tasks] == [(str(shard),)] * 3
