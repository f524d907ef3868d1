"""CSV: vectors in a cell or in numbered columns, and ids that are integers or not."""

import pytest

from embinv.data.dumps.opening import DumpSettings, open_dump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "x"], ["1", "x"]),
        (["01", "2"], ["01", "2"]),
        (["9223372036854775808", "1"], None),
    ],
)
def test_ids_of_csv_are_integers_if_all_are(tmp_path, ids, expected):
    (tmp_path / "dump.csv").write_text("id,embedding\n" + "".join(f'{each},"[1, 2]"\n' for each in ids))
    assert [each for block in blocks_of(tmp_path / "dump.csv") for each in block.ids.to_pylist()] == (expected or ids)


@pytest.mark.parametrize("header", ["0,1,2", "e_0,e_1,e_2", "dim0,dim1,dim2"])
def test_numbered_columns_are_a_vector_and_their_prefix_its_name(tmp_path, header):
    (tmp_path / "dump.csv").write_text(f"{header},text\n1,2,3,a\n4,5,6e1,\n")
    (block,) = blocks_of(tmp_path / "dump.csv", 10)
    assert block.vectors.tolist() == [[1, 2, 3], [4, 5, 60]] and block.metadata.to_pydict() == {"text": ["a", None]}
    (named,) = blocks_of(tmp_path / "dump.csv", 10, column=header.split(",")[0].rstrip("0"))
    assert named.vectors.tolist() == block.vectors.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,embedding\n1,x\n", "row 0 of 'embedding' is no vector .*; write numbers, or a cell as"),
        ("e_0,e_1\n1,2\n1,x\n", "row 1 of 'e_' is no vector"),
        ("e_0,e_1\n1,\n", "row 0 of 'e_' is empty"),
        ("a_0,a_1,b_0,b_1\n1,2,3,4\n", "several columns could hold the vectors; name one of a_, b_"),
        ("id,embedding\n,[1]\n", "row 0 of 'id' is null"),
        ("a,a\n1,2\n", "two columns have one name"),
        ("", "is empty; write a first line"),
    ],
)
def test_a_bad_row_of_csv_is_named_with_the_fix(tmp_path, text, message):
    (tmp_path / "dump.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"dump.csv: {message}"):
        list(blocks_of(tmp_path / "dump.csv", 10))


def test_a_cell_may_be_longer_than_the_csv_modules_own_limit(tmp_path):
    (tmp_path / "dump.csv").write_text('embedding\n"' + str([0.123456789] * 20_000) + '"\n')
    (block,) = blocks_of(tmp_path / "dump.csv")
    assert block.vectors.shape == (1, 20_000)
