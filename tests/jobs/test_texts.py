"""A piece of a source: read and cleaned up to the good row that is wanted, and on from there."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.settings import DataSettings, TextSource
from embinv.data.sources import list_files
from jobs.rejects import read_rejects
from jobs.texts import CLEANED_SCHEMA, FOUND, Piece, RecordBlocks, TextPieces, clean, read_piece, rows_given

GOOD = [f"A good text, the one with the number {n}." for n in range(6)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out" / FOUND).mkdir(parents=True)
    return tmp_path / "out"


@pytest.fixture
def source(tmp_path):
    """Each good text has a bad one before it."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for text in GOOD for line in ("bad", text)))
    [file] = list_files(TextSource(path=str(path), lang="en"), seed=0)
    return file


def read(piece, folder, **data):
    table = pa.concat_tables(read_piece(piece, DataSettings(**data), folder))
    assert table.schema == CLEANED_SCHEMA
    return table


def kept(table):
    return [row["text"] for row in table.to_pylist() if row["dropped"] is None]


def test_a_piece_ends_with_its_last_wanted_row(source, folder):
    table = read(Piece(source, 2), folder)
    assert kept(table) == GOOD[:2] and len(table) == 4
    assert rows_given(folder, source.url) == 2


def test_pieces_one_after_another_give_every_row_once(source, folder):
    parts = [read(Piece(source, want, after), folder) for after, want in ((0, 1), (1, 3), (4, 9))]
    whole = read(Piece(source, None), folder)
    assert pa.concat_tables(parts).equals(whole) and len(whole) == 12
    assert rows_given(folder, source.url) == 6


def test_rows_that_were_read_before_can_fill_whole_tables(tmp_path, folder):
    pq.write_table(
        pa.table({"text": [f"A good text, number {n} of many of them." for n in range(20_000)]}), tmp_path / "a.parquet"
    )
    [file] = list_files(TextSource(path=str(tmp_path / "a.parquet")), seed=0)
    assert kept(read(Piece(file, 3, after=17_000), folder)) == [
        f"A good text, number {n} of many of them." for n in (17_000, 17_001, 17_002)
    ]


def test_of_a_file_that_nobody_read_nothing_was_given(folder):
    assert rows_given(folder, "hf://datasets/owner/name/a.txt") == 0


def test_a_damaged_file_is_noted_once_however_often_it_is_read(tmp_path, folder):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": GOOD[0]}) + '\n{"text": "half')
    [file] = list_files(TextSource(path=str(tmp_path / "a.jsonl")), seed=0)
    for _ in range(2):
        assert kept(read(Piece(file, None), folder)) == GOOD[:1]
    assert list(read_rejects(folder).files) == [file.url]


def test_a_dropped_row_says_why_and_keeps_no_text():
    texts = [GOOD[0], "", "short", "x" * 501, "Ein Text, der hier nicht sein soll."]  # typos: ignore-line
    table = pa.table({"text": texts, "lang": ["en", "en", "en", "en", "de"]})
    cleaned = clean(table, DataSettings(languages=["en"]))
    assert cleaned["dropped"].to_pylist() == [None, "empty", "too_short", "too_long", "language_de"]
    assert cleaned["text"].to_pylist() == [GOOD[0], "", "", "", ""]


def test_the_language_check_reads_good_rows_only():
    french = "Le comité se réunira jeudi à midi dans l'ancienne bibliothèque."
    table = pa.table({"text": [french, french, "oui"], "lang": ["en", "fr", "en"]})
    cleaned = clean(table, DataSettings(language_check=True))
    assert cleaned["dropped"].to_pylist() == ["language_mismatch", None, "too_short"]


def test_records_carry_their_spans(folder):
    table = read(Piece(RecordBlocks("de", 1), 5), folder)
    assert len(kept(table)) == 5 and all(table["spans"].to_pylist())
    assert set(table["lang"].to_pylist()) == {"de"}
    assert kept(table) != kept(read(Piece(RecordBlocks("de", 0), 5), folder))


def test_each_piece_is_a_task_of_its_own(source, folder):
    pieces = [Piece(source, 1), Piece(RecordBlocks("en", 0), 1)]
    tasks = TextPieces(pieces, DataSettings(), folder).get_read_tasks(parallelism=1)
    assert [list(task.metadata.input_files) for task in tasks] == [[piece.source.url] for piece in pieces]
    assert [len(kept(pa.concat_tables(task()))) for task in tasks] == [1, 1]
