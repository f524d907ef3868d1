"""Lines of JSON that are no rows, and what becomes of metadata."""

import json

import pytest

from embinv.data.dumps.opening import DumpSettings, open_dump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": 1, "embedding": [1]}', '{"id": 2}'], "row 1 has no 'embedding', or null; remove"),
        (
            ['{"id": 1, "embedding": [1]}', '{"id": 2, "embedding": ["1"]}'],
            "row 1 of 'embedding' is no list of numbers",
        ),
        (['{"id": 1, "embedding": [1]}', '{"id": 2, "embedding": [1, 2]}'], "row 1 of 'embedding' has 2 numbers"),
        (['{"id": 1, "embedding": [1]}', '{"id": "2", "embedding": [1]}'], "row 1 of 'id' is a str.*id as a string"),
        (['{"id": 1, "embedding": [1]}', '{"embedding": [1]}'], "row 1 of 'id' is null"),
        (['{"id": 1.5, "embedding": [1]}'], "row 0 of 'id' is a float, but ids are integers or strings"),
        (
            ['{"id": 18446744073709551616, "embedding": [1]}'],
            "row 0 of 'id' is past 64 bits; write every id as a string",
        ),
        (['[{"id": 1}]'], "is one JSON array; write one object a line"),
        ([""], "is empty"),
        (['{"a": [1], "b": [2]}'], "several columns could hold the vectors"),
    ],
)
def test_a_bad_line_is_named_with_the_fix(tmp_path, lines, message):
    (tmp_path / "dump.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"dump.jsonl: {message}"):
        list(blocks_of(tmp_path / "dump.jsonl", 10))


def test_metadata_of_json_keep_what_arrow_can_hold(tmp_path):
    rows = [
        {"embedding": [1, 2], "when": "2020-01-01", "mixed": 1, "nested": {"a": [1]}, "half": "a\ud800"},
        {"embedding": [3, 4.5], "mixed": "x", "late": True},
    ]
    (tmp_path / "dump.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (block,) = blocks_of(tmp_path / "dump.jsonl", 10)
    assert block.metadata.to_pydict() == {
        "when": ["2020-01-01", None],
        "mixed": ["1", "x"],
        "nested": [{"a": [1]}, None],
        "half": ["a\ufffd", None],
        "late": [None, True],
    }
    assert block.ids.to_pylist() == [0, 1] and block.vectors.tolist() == [[1, 2], [3, 4.5]]


def test_a_field_of_metadata_that_the_first_line_lacks_is_refused(tmp_path):
    (tmp_path / "dump.jsonl").write_text('{"embedding": [1], "text": "a", "page": 1}')
    (block,) = blocks_of(tmp_path / "dump.jsonl", metadata=["page"])
    assert block.metadata.to_pydict() == {"page": [1]}
    with pytest.raises(
        ValueError, match=r"--vectors .*dump.jsonl: no column 'txt', it has embedding, text, page; mend"
    ):
        list(blocks_of(tmp_path / "dump.jsonl", metadata=["page", "txt"]))
