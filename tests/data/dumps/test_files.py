"""Files that are damaged, cut short, changed while they are read, or hold no vectors: what is read, and what is said."""

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump


def blocks_of(path, rows=1, **settings):
    for part in open_dump(str(path), DumpSettings(**settings)).parts():
        yield from part.blocks(rows)


def read_until_broken(path, rows=1):
    """The ids that come before the dump breaks, and what is said."""
    found = []
    with pytest.raises(BrokenDump) as caught:
        for block in blocks_of(path, rows):
            found += block.ids.to_pylist()
    return found, str(caught.value)


def cut(path, bytes_left):
    os.truncate(path, bytes_left)


# Cut short


@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whole_rows_of_a_npy_that_was_cut_come_before_the_error(tmp_path, vectors, rows, order):
    path = tmp_path / "dump.npy"
    np.save(path, np.asarray(vectors, order=order))
    cut(path, path.stat().st_size - 40)  # less than two rows, of ten numbers more than one
    whole = len(vectors) - (2 if order == "C" else 10)
    found, said = read_until_broken(path, rows)
    assert found == list(range(whole))
    assert f"{path}: is damaged or cut short at row {whole} (it has {whole} of 23 rows); fetch it anew" in said


@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_whole_lines_of_json_that_was_cut_come_before_the_error(tmp_path, vectors, rows, suffix):
    path = tmp_path / f"dump{suffix}"
    lines = "".join(
        json.dumps({"id": f"i{row}", "embedding": each.tolist()}) + "\n" for row, each in enumerate(vectors)
    )
    if suffix == ".jsonl":
        path.write_text(lines[:-20])
    else:
        whole = gzip.compress(lines.encode())
        path.write_bytes(whole[: len(whole) * 2 // 3])
    found, said = read_until_broken(path, rows)
    assert found == [f"i{row}" for row in range(len(found))]
    assert len(found) == 22 if suffix == ".jsonl" else 5 < len(found) < 22
    assert f"is damaged or cut short at row {len(found)} (" in said and "the same command goes on" in said


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_whole_rows_of_csv_that_was_cut_come_before_the_error(tmp_path, vectors, rows):
    path = tmp_path / "dump.csv"
    lines = [f'{row},"{each.tolist()}",x\n' for row, each in enumerate(vectors)]
    path.write_text("id,embedding,text\n" + "".join(lines)[:-30])
    found, said = read_until_broken(path, rows)
    assert found == list(range(22)) and "cut short at row 22 (" in said


def test_row_groups_before_a_damaged_one_are_read(tmp_path, table):
    path = tmp_path / "dump.parquet"
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    raw = bytearray(path.read_bytes())
    start = column.data_page_offset
    raw[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(raw)
    found, said = read_until_broken(path)
    assert found == table["id"].to_pylist()[:10] and "cut short at row 10 (" in said


@pytest.mark.parametrize("name", ["dump.parquet", "dump.arrow", "dump.npz"])
def test_a_file_without_its_end_cannot_be_opened(tmp_path, table, name):
    path = tmp_path / name
    if name == "dump.parquet":
        pq.write_table(table, path)
    elif name == "dump.npz":
        np.savez(path, embedding=np.ones((50, 9)))
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    cut(path, path.stat().st_size - 50)
    with pytest.raises(BrokenDump, match=f"--vectors {path}: .*fetch it anew"):
        open_dump(str(path)).parts()


def test_batches_of_an_arrow_stream_that_was_cut_come_before_the_error(tmp_path, table):
    path = tmp_path / "dump.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    cut(path, path.stat().st_size - 60)
    found, said = read_until_broken(path)
    assert found == table["id"].to_pylist()[:20] and "cut short at row 20" in said


def test_a_damaged_npz_gives_its_whole_rows(tmp_path):
    path = tmp_path / "dump.npz"
    np.savez(path, embedding=np.arange(30_000, dtype=np.float32).reshape(-1, 3))
    raw = bytearray(path.read_bytes())
    raw[60_000] ^= 255
    path.write_bytes(raw)
    with pytest.raises(BrokenDump, match=r"dump.npz: is damaged or cut short at row \d+ \(Bad CRC"):
        list(blocks_of(path, 100))


# Changed while it is read


@pytest.mark.parametrize("name", ["dump.npy", "dump.npz", "dump.parquet", "dump.jsonl", "dump.csv", "dump.arrow"])
@pytest.mark.parametrize("change", ["grow", "touch", "remove"])
def test_a_file_that_changes_under_the_reader_ends_the_reading(tmp_path, table, name, change):
    path = tmp_path / name
    write(path, table)
    blocks = blocks_of(path, 5)
    assert len(next(blocks)) == 5
    if change == "grow":
        with open(path, "ab") as file:
            file.write(b"more")
    elif change == "touch":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
    with pytest.raises(BrokenDump, match=rf"{path}: (was changed|is gone).* row 5.*the same command goes on"):
        list(blocks)


def write(path, table):
    rows = [{**row, "embedding": list(row["embedding"])} for row in table.to_pylist()]
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".csv":
        path.write_text("id,embedding\n" + "\n".join(f'{row["id"]},"{row["embedding"]}"' for row in rows))
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    else:
        vectors = np.stack(table["embedding"].to_numpy())
        np.save(path, vectors) if path.suffix == ".npy" else np.savez(path, embedding=vectors)


# NumPy


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


def test_the_array_of_an_npz_is_chosen_by_name(tmp_path):
    np.savez(tmp_path / "dump.npz", a=np.ones((2, 3)), b=np.full((2, 4), 2.0), id=np.array(["x", "y"]))
    with pytest.raises(ValueError, match="several columns could hold the vectors; name one of a, b"):
        list(blocks_of(tmp_path / "dump.npz"))
    (block,) = blocks_of(tmp_path / "dump.npz", 9, name="b")
    assert block.vectors.tolist() == [[2.0] * 4] * 2 and block.ids.to_pylist() == ["x", "y"]
    assert block.metadata.to_pydict() == {"a": [[1.0] * 3] * 2}


# Parquet


def test_ids_of_a_folder_are_strings_if_one_file_has_strings(tmp_path):
    pq.write_table(pa.table({"id": [1], "embedding": [[1.0]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "embedding": [[2.0]]}), tmp_path / "b.parquet")
    assert [block.ids.to_pylist() for block in blocks_of(tmp_path)] == [["1"], ["x"]]


def test_rows_without_ids_are_numbered_through_a_folder(tmp_path):
    for name in ("a", "b"):
        pq.write_table(pa.table({"embedding": [[1.0], [2.0]]}), tmp_path / f"{name}.parquet", row_group_size=1)
    assert [block.ids.to_pylist() for block in blocks_of(tmp_path, 2)] == [[0], [1], [2], [3]]
    with pytest.raises(ValueError, match=r"has no column of ids, while others have"):
        pq.write_table(pa.table({"id": [1], "embedding": [[1.0]]}), tmp_path / "c.parquet")
        list(blocks_of(tmp_path))


def test_a_large_file_is_several_parts_that_make_the_same_rows(tmp_path, table):
    from embinv.data.dumps.parquet_files import ParquetDump

    pq.write_table(table.drop(["id"]), tmp_path / "dump.parquet", row_group_size=4)
    parts = ParquetDump(str(tmp_path / "dump.parquet"), DumpSettings(), part_rows=8).parts()
    assert [part.rows for part in parts] == [8, 8, 7]
    assert [part.name.partition(" ")[2] for part in parts][:2] == ["(row groups 0 to 1)", "(row groups 2 to 3)"]
    ids = [each for part in parts for block in part.blocks(3) for each in block.ids.to_pylist()]
    assert ids == list(range(23))


def test_what_a_folder_says_can_be_asked_for_by_name(tmp_path):
    (tmp_path / "split=test").mkdir()
    pq.write_table(pa.table({"embedding": [[1.0]], "a": [1]}), tmp_path / "split=test" / "p.parquet")
    (block,) = blocks_of(tmp_path, metadata=["split"])
    assert block.metadata.to_pydict() == {"split": ["test"]}


def test_files_of_other_lengths_of_vectors_are_refused(tmp_path):
    for width in (2, 3):
        kind = pa.list_(pa.float32(), width)
        pq.write_table(pa.table({"embedding": pa.array([[1.0] * width], kind)}), tmp_path / f"{width}.parquet")
    with pytest.raises(ValueError, match=r"3.parquet: its vectors have 3 numbers, those of .*2.parquet 2"):
        list(blocks_of(tmp_path))


def test_an_empty_parquet_file_gives_no_blocks(tmp_path, table):
    pq.write_table(table.slice(0, 0), tmp_path / "dump.parquet")
    assert list(blocks_of(tmp_path / "dump.parquet")) == []


# JSON lines


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


# CSV


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
