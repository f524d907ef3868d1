"""From a file to tables: every kind, in bounded memory, and what becomes of damaged files."""

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embinv.data import formats
from embinv.data.reading import UnreadableFile, read_batches
from embinv.data.settings import TextSource
from embinv.data.sources import KINDS, list_files
from tests.hub import c4_row, noise, write_jsonl_gz

TEXTS = ["plain", 'with "quotes", commas', "größer und straße", "漢字 🙂", "NA", "null", "  spaced\ttext "]
LANGS = ["en", "en", "de", "zh", "en", "en", "en"]


def listed(path, lang=None):
    [file] = list_files(TextSource(path=str(path), lang=lang), seed=0)
    return file


def rows(path, text_column="text", lang=None):
    table = pa.concat_tables(read_batches(listed(path, lang), text_column))
    return table["text"].to_pylist(), table["lang"].to_pylist()


def rows_until_damage(path):
    """The texts before the damage, and what is said of it."""
    texts = []
    with pytest.raises(UnreadableFile) as caught:
        for table in read_batches(listed(path), "text"):
            texts += table["text"].to_pylist()
    assert str(caught.value).startswith(f"{path}: is damaged (")
    return texts, caught.value.reason


def packed(data, kind):
    if kind.endswith(".gz"):
        return gzip.compress(data)
    if kind.endswith(".zst"):
        return pa.compress(data, "zstd", asbytes=True)
    return data


def write(path, texts, langs=None, key="text"):
    """Texts in the format that the path ends in."""
    kind = "".join(path.suffixes)
    columns = {"number": list(range(len(texts))), key: texts} | ({"lang": langs} if langs else {})
    table = pa.table(columns)
    if kind == ".parquet":
        pq.write_table(table, path, row_group_size=3)
        return path
    sink = pa.BufferOutputStream()
    if kind.startswith(".csv"):
        pyarrow.csv.write_csv(table, sink)
        data = sink.getvalue().to_pybytes()
    elif kind.startswith(".txt"):
        data = "".join(f"{text}\n" for text in texts).encode()
    else:
        data = "".join(f"{json.dumps(row)}\n" for row in table.to_pylist()).encode()
    path.write_bytes(packed(data, kind))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_texts_back(tmp_path, kind):
    assert rows(write(tmp_path / f"a{kind}", TEXTS)) == (TEXTS, ["und"] * len(TEXTS))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(".txt")])
def test_the_language_is_the_sources_or_else_the_columns(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", TEXTS, LANGS)
    assert rows(path) == (TEXTS, LANGS)
    assert rows(path, lang="fr") == (TEXTS, ["fr"] * len(TEXTS))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(".txt")])
def test_another_column_can_be_the_text(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", TEXTS, key="content")
    assert rows(path, "content")[0] == TEXTS
    with pytest.raises(
        ValueError, match="no column 'text', it has number, content; .* data.text_column=NAME"
    ) as caught:
        rows(path)
    assert not isinstance(caught.value, UnreadableFile)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_one_schema_and_a_bounded_number_of_rows(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", TEXTS)
    tables = list(read_batches(listed(path), "text", batch_rows=2))
    assert max(map(len, tables)) == 2
    assert {table.schema for table in tables} == {pa.schema({"text": pa.string(), "lang": pa.string()})}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(".csv")])
def test_an_empty_file_has_no_rows(tmp_path, kind):
    assert sum(map(len, read_batches(listed(write(tmp_path / f"a{kind}", [])), "text"))) == 0


def test_rows_of_c4_give_their_text(tmp_path):
    path = write_jsonl_gz(tmp_path / "c4-train.00000-of-00001.json.gz", [c4_row(text) for text in TEXTS])
    assert rows(path, lang="en") == (TEXTS, ["en"] * len(TEXTS))


def test_a_missing_text_is_null_and_a_blank_line_is_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf\n{"url": "x"}\n\n  \r\n{"text": null, "lang": null}\r\n{"text": "one", "lang": "en"}'
    )
    assert rows(path) == ([None, None, "one"], ["und", "und", "en"])


def test_keys_may_hold_anything_beside_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"meta": {"a": [1, "x"]}, "text": "one", "n": 1}\n{"meta": "none", "text": "two", "n": "1"}\n')
    assert rows(path)[0] == ["one", "two"]


def test_lines_split_at_newlines_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still one\r\n\n \t\ntwo\x0bstill two".encode())
    assert rows(path)[0] == ["one\u2028still one", "two\x0bstill two"]


def test_a_text_in_csv_may_hold_newlines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"one\ntwo",1\nthree,x\n')
    assert rows(path)[0] == ["one\ntwo", "three"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_may_hold_strings_of_any_type(tmp_path, kind):
    pq.write_table(pa.table({"text": pa.array(["one", None, "one"], pa.string()).cast(kind)}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet")[0] == ["one", None, "one"]


def test_a_parquet_column_of_numbers_is_no_text(tmp_path):
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'text' holds int64, not strings"):
        rows(tmp_path / "a.parquet")


def test_a_json_array_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.json").write_text('[\n{"text": "one"}\n]\n')
    with pytest.raises(ValueError, match=r"is one JSON array; write one object a line, as with `jq -c '\.\[\]'`"):
        rows(tmp_path / "a.json")


def test_half_a_surrogate_pair_is_replaced_and_costs_no_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "b\\ud83d."}\n{"text": "\\ud83d\\ude42"}\n')
    assert rows(tmp_path / "a.jsonl") == (["one", "b\ufffd.", "🙂"], ["und"] * 3)


@pytest.mark.parametrize("kind", [".jsonl.gz", ".txt.zst", ".csv.gz", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    texts = noise(40_000)  # 16 MB
    path = tmp_path / f"a{kind}"
    if kind == ".parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=5000, use_dictionary=False)
    else:
        write(path, texts)
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for table in read_batches(listed(path), "text", batch_rows=1000):
        count += len(table)
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == len(texts)
    assert most < 12 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_reading_can_stop_early(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", noise(6000))
    for _ in range(3):
        batches = read_batches(listed(path), "text", batch_rows=10)
        assert len(next(batches)) > 0
        batches.close()
        assert list(batches) == []


def test_a_truncated_gzip_gives_the_whole_lines_before_its_end(tmp_path):
    texts = noise(9000)
    path = write_jsonl_gz(tmp_path / "a.jsonl.gz", [c4_row(text) for text in texts])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    found, reason = rows_until_damage(path)
    assert 6500 < len(found) < 7000
    assert found == texts[: len(found)]
    assert "ended before the end-of-stream marker" in reason


def test_a_gzip_with_a_wrong_checksum_is_damaged(tmp_path):
    path = write_jsonl_gz(tmp_path / "a.json.gz", [c4_row("one"), c4_row("two")])
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    assert "CRC" in rows_until_damage(path)[1]


def test_what_is_no_gzip_is_damaged(tmp_path):
    (tmp_path / "a.txt.gz").write_text("<html>not found</html>")
    assert rows_until_damage(tmp_path / "a.txt.gz") == ([], "Not a gzipped file (b'<h')")


@pytest.mark.parametrize(
    ("kind", "lost_bytes"), [(".jsonl.zst", 1 << 17), (".csv.zst", 16 << 20), (".csv.gz", 16 << 20)]
)
def test_a_truncated_file_of_another_kind_loses_no_more_than_was_read_ahead(tmp_path, kind, lost_bytes):
    texts = noise(60_000)
    path = write(tmp_path / f"a{kind}", texts)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    found, reason = rows_until_damage(path)
    assert len(found) > 54_000 - lost_bytes // 400
    assert found == texts[: len(found)]
    assert reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', r"line 3001: Unterminated string"),
        (b"<html>", r"line 3001: Expecting value"),
        (b'{"text": 5}', r"line 3001: 'text' is a int, not a string"),
        (b'["text"]', r"line 3001: 'text' is a list, not a string"),
        (b'{"text": "\xff"}', r"line 3001: 'utf-8' codec can't decode"),
    ],
)
def test_a_broken_line_of_json_comes_after_the_rows_before_it(tmp_path, line, reason):
    texts = noise(3000)
    path = write(tmp_path / "a.jsonl", texts)
    path.write_bytes(path.read_bytes() + line + b'\n{"text": "after"}\n')
    found, said = rows_until_damage(path)
    assert found == texts
    assert said.startswith(reason)


def test_a_column_is_missing_even_if_a_line_is_broken_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "one"}\n<html>\n')
    with pytest.raises(ValueError, match="no column 'text', it has content; "):
        rows(tmp_path / "a.jsonl")


def test_text_that_is_not_utf8_comes_after_the_lines_before_it(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nGr\xfc\xdfe\nthree\n")
    found, reason = rows_until_damage(tmp_path / "a.txt")
    assert found == ["one", "two"]
    assert "utf-8" in reason


def test_a_csv_row_with_too_many_cells_is_damage(tmp_path):
    path = write(tmp_path / "a.csv", noise(6000))
    path.write_bytes(path.read_bytes() + b"1,2,3,4\n")
    found, reason = rows_until_damage(path)
    assert found == noise(6000)[: len(found)] != []
    assert "Expected 2 columns, got 4" in reason


def test_a_csv_file_without_a_header_is_damaged(tmp_path):
    (tmp_path / "a.csv").write_text("")
    assert rows_until_damage(tmp_path / "a.csv") == ([], "Empty CSV file")


def test_a_truncated_parquet_file_is_damaged(tmp_path):
    path = write(tmp_path / "a.parquet", TEXTS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "magic bytes not found" in rows_until_damage(path)[1]


def test_a_parquet_file_damaged_in_its_middle_gives_the_rows_before(tmp_path):
    texts = noise(3000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, use_dictionary=False)
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    assert rows_until_damage(path)[0] == texts[:1000]


def test_a_line_without_end_is_not_gathered_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LINE_BYTES", 1 << 20)
    (tmp_path / "a.txt").write_bytes(b"x" * (2 << 20))
    assert "a line is longer than 1 MiB" in rows_until_damage(tmp_path / "a.txt")[1]


def test_a_damage_can_be_sent_from_a_worker():
    damage = pickle.loads(pickle.dumps(UnreadableFile("hf://a", "it is cut")))  # noqa: S301
    assert (damage.url, damage.reason) == ("hf://a", "it is cut")
    assert str(damage) == "hf://a: is damaged (it is cut); fetch it anew or leave it out"


def test_a_file_that_went_away_is_no_damage(tmp_path):
    file = listed(write(tmp_path / "a.jsonl", TEXTS))
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(ValueError, match="no such file or folder") as caught:
        list(read_batches(file, "text"))
    assert not isinstance(caught.value, UnreadableFile)
