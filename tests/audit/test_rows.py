"""embinv/audit/rows.py: what is read of the inversion job's files, and what is said of those that cannot be."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.audit.rows import count_rows, read_rows, recovered_files
from tests.audit.leaks import write_corpus, write_recovered

TEXTS = ["ann owes ben", "carl left", "dora came"]


def test_rows_come_in_the_order_of_files_and_blocks_with_what_their_metadata_says(tmp_path):
    metadata = [{"body": "Ann owes Ben", "lang": "en", "year": 3}, None, {"body": 7, "lang": ""}]
    write_recovered(tmp_path / "b.parquet", TEXTS, probabilities=[0.5, None, 0.25], metadata=metadata)
    write_recovered(tmp_path / "a.parquet", ["first"], ids=[99])
    write_recovered(tmp_path / "_temporary" / "c.parquet", ["half written"])
    files = recovered_files([tmp_path])
    assert [path.name for path in files] == ["a.parquet", "b.parquet"] and count_rows(files) == 4
    blocks = list(read_rows(files, "body", block_rows=2))
    assert [len(block) for block in blocks] == [1, 2, 1]
    assert [text for block in blocks for text in block.texts] == ["first", *TEXTS]
    assert [number for block in blocks for number in block.ids] == [99, 0, 1, 2]
    assert [original for block in blocks for original in block.originals] == [None, "Ann owes Ben", None, None]
    assert [lang for block in blocks for lang in block.langs] == [None, "en", None, None]
    probabilities = np.concatenate([block.probabilities for block in blocks])
    np.testing.assert_array_equal(probabilities, [np.nan, 0.5, np.nan, 0.25])


def test_originals_are_read_only_from_a_column_that_was_asked_for(tmp_path):
    path = write_recovered(tmp_path / "a.parquet", TEXTS, metadata=[{"body": "secret"}] * 3)
    (block,) = read_rows([path], None)
    assert block.originals == [None] * 3


def test_ids_may_be_strings_and_columns_that_a_report_can_do_without_may_be_missing(tmp_path):
    pq.write_table(pa.table({"id": ["x", "y"], "text": ["one", ""]}), tmp_path / "a.parquet")
    (block,) = read_rows([tmp_path / "a.parquet"], "body")
    assert block.ids == ["x", "y"] and block.texts == ["one", ""]
    assert (block.without_text, block.in_column) == (0, 0)
    assert np.isnan(block.probabilities).all() and np.isnan(block.confidences).all()


def test_a_vector_without_a_text_is_counted_and_left_out_with_all_that_is_known_of_it(tmp_path):
    labels = write_corpus(tmp_path / "texts", [6], ["Carl left Bern"], [[("PERSON", "Carl")]])
    metadata = [{"b": "Ann"}, {"b": "Carl left"}, None]
    path = write_recovered(
        tmp_path / "a.parquet", [None, "carl", None], ids=[5, 6, 7], probabilities=[0.1, 0.5, 0.2], metadata=metadata
    )
    (block,) = read_rows([path], "b", labels)  # 5 and 7 need not be in the corpus
    assert (block.ids, block.texts, block.originals) == ([6], ["carl"], ["Carl left"])
    assert block.probabilities.tolist() == [0.5] and len(block.confidences) == len(block.langs) == 1
    assert block.entities == [[("PERSON", "Carl")]]
    assert (block.without_text, block.in_column, len(block)) == (2, 1, 1)


def test_originals_of_the_labelled_corpus_do_not_count_as_the_columns(tmp_path):
    labels = write_corpus(tmp_path / "texts", [5], ["Ann owes Ben"], [[]])
    path = write_recovered(tmp_path / "a.parquet", ["ann"], ids=[5], metadata=[{"body": "Ann"}])
    (block,) = read_rows([path], "summary", labels)
    assert block.originals == ["Ann owes Ben"] and block.in_column == 0


def test_labels_come_with_the_corpus_texts_where_no_column_has_the_original(tmp_path):
    labels = write_corpus(tmp_path / "texts", [5, 6], ["Ann owes Ben", "Carl left Bern"], [[("PERSON", "Ann")], []])
    path = write_recovered(
        tmp_path / "a.parquet", ["ann", "x", "y"], ids=["6", "5", "5"], metadata=[None, None, {"b": "Ann"}]
    )
    (block,) = read_rows([path], "b", labels)
    assert block.originals == ["Carl left Bern", "Ann owes Ben", "Ann"]
    assert block.entities == [[], [("PERSON", "Ann")], [("PERSON", "Ann")]]


def test_labels_of_a_corpus_that_these_ids_cannot_be_of_are_refused(tmp_path):
    labels = write_corpus(tmp_path / "texts", [5], ["Ann"], [[]])
    path = write_recovered(tmp_path / "a.parquet", ["ann"], ids=["doc-1"])
    with pytest.raises(ValueError, match="--texts .*whole numbers.*doc-1"):
        list(read_rows([path], None, labels))
    path = write_recovered(tmp_path / "c.parquet", ["ann"], ids=[str(2**63)])
    with pytest.raises(ValueError, match="--texts .*whole numbers of 64 bits"):
        list(read_rows([path], None, labels))
    path = write_recovered(tmp_path / "b.parquet", ["ann"], ids=[9])
    with pytest.raises(ValueError, match="lacks 1 of the 1 texts, such as id 9"):
        list(read_rows([path], None, labels))


@pytest.mark.parametrize("make", ["missing", "empty folder"])
def test_a_path_without_rows_is_refused_with_the_flag(tmp_path, make):
    path = tmp_path / "recovered"
    if make == "empty folder":
        path.mkdir()
    with pytest.raises(ValueError, match="--recovered .*inversion job"):
        recovered_files([path])


def test_a_file_that_is_not_of_the_inversion_job_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as Parquet"):
        count_rows([tmp_path / "a.parquet"])
    with pytest.raises(ValueError, match=r"b\.parquet: has no column text"):
        count_rows([tmp_path / "b.parquet"])


@pytest.mark.parametrize("line", ["{no json", json.dumps([1]), json.dumps("x")])
def test_metadata_that_is_no_object_is_named_with_its_id(tmp_path, line):
    table = pa.table({"id": [41], "text": ["x"], "metadata": [line]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: metadata of id 41"):
        list(read_rows([tmp_path / "a.parquet"], "body"))
