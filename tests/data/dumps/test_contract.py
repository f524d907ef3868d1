"""What every kind of dump promises: the same rows in the same order, whatever the block, in another process too."""

import gzip
import json
import pickle
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embinv.data.dumps.opening import open_dump
from embinv.data.dumps.settings import DumpSettings

METADATA = ["text", "page"]


@dataclass
class Made:
    """A dump of the rows, and what it must give."""

    address: str
    settings: DumpSettings
    ids: list
    metadata: dict | None


def expected(table):
    return {name: table[name].to_pylist() for name in METADATA}


def rows_of(table):
    return [{**row, "embedding": [float(x) for x in row["embedding"]]} for row in table.to_pylist()]


def npy(folder, table):
    np.save(folder / "dump.npy", matrix(table))
    return Made(str(folder / "dump.npy"), DumpSettings(), list(range(len(table))), None)


def npy_fortran(folder, table):
    np.save(folder / "dump.npy", np.asfortranarray(matrix(table)))
    return Made(str(folder / "dump.npy"), DumpSettings(), list(range(len(table))), None)


def npz(folder, table):
    others = {name: table[name].to_numpy() for name in ("id", "page")}
    texts = np.array(table["text"].to_pylist())
    np.savez_compressed(folder / "dump.npz", embedding=matrix(table), text=texts, **others)
    return Made(str(folder / "dump.npz"), DumpSettings(metadata=METADATA), table["id"].to_pylist(), expected(table))


def parquet(folder, table):
    pq.write_table(table, folder / "dump.parquet", row_group_size=5)
    return Made(str(folder / "dump.parquet"), DumpSettings(), table["id"].to_pylist(), expected(table))


def parquet_folder(folder, table):
    for number, start in enumerate(range(0, len(table), 10)):
        inner = folder / f"split={'ab'[number > 0]}"
        inner.mkdir(exist_ok=True)
        pq.write_table(table.slice(start, 10), inner / f"part-{number}.parquet")
    (folder / "_stats.parquet").write_bytes(b"no part of it")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "part.parquet").write_bytes(b"neither")
    hive = {"split": ["a"] * 10 + ["b"] * (len(table) - 10)}
    return Made(str(folder), DumpSettings(), table["id"].to_pylist(), expected(table) | hive)


def arrow_file(folder, table):
    with pa.ipc.new_file(folder / "dump.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return Made(str(folder / "dump.arrow"), DumpSettings(), table["id"].to_pylist(), expected(table))


def arrow_stream(folder, table):
    with pa.ipc.new_stream(folder / "dump.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return Made(str(folder / "dump.arrow"), DumpSettings(), table["id"].to_pylist(), expected(table))


def json_lines(folder, table):
    (folder / "dump.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(table)))
    return Made(str(folder / "dump.jsonl"), DumpSettings(), table["id"].to_pylist(), expected(table))


def json_lines_gz(folder, table):
    with gzip.open(folder / "dump.ndjson.gz", "wt") as file:
        file.write("\n\n".join(json.dumps(row) for row in rows_of(table)))
    return Made(str(folder / "dump.ndjson.gz"), DumpSettings(), table["id"].to_pylist(), expected(table))


def json_lines_zst(folder, table):
    with pa.CompressedOutputStream(str(folder / "dump.jsonl.zst"), "zstd") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows_of(table)).encode())
    return Made(str(folder / "dump.jsonl.zst"), DumpSettings(), table["id"].to_pylist(), expected(table))


def csv_cells(folder, table):
    cells = pa.array([json.dumps(row["embedding"]) for row in rows_of(table)])
    pa.csv.write_csv(table.set_column(1, "embedding", cells), folder / "dump.csv")
    return Made(str(folder / "dump.csv"), DumpSettings(), table["id"].to_pylist(), texts_of(table))


def csv_columns(folder, table):
    wide = {f"e_{number}": pa.array(column) for number, column in enumerate(matrix(table).T)}
    others = {name: table[name] for name in ("id", *METADATA)}
    options = pa.csv.WriteOptions(delimiter="\t")
    pa.csv.write_csv(pa.table({**dict(reversed(wide.items())), **others}), folder / "dump.tsv", options)
    return Made(str(folder / "dump.tsv"), DumpSettings(), table["id"].to_pylist(), texts_of(table))


def faiss_flat(folder, table):
    import faiss

    index = faiss.IndexFlatIP(matrix(table).shape[1])
    index.add(matrix(table))
    faiss.write_index(index, str(folder / "index.faiss"))
    (folder / "index.pkl").write_bytes(b"not looked at")
    return Made(str(folder), DumpSettings(), list(range(len(table))), None)


def faiss_with_ids(folder, table):
    import faiss

    index = faiss.IndexIDMap2(faiss.IndexHNSWFlat(matrix(table).shape[1], 4))
    index.add_with_ids(matrix(table), table["id"].to_numpy())
    faiss.write_index(index, str(folder / "dump.index"))
    return Made(str(folder / "dump.index"), DumpSettings(), table["id"].to_pylist(), None)


def faiss_inverted(folder, table):
    import faiss

    index = faiss.index_factory(matrix(table).shape[1], "IVF2,Flat")
    index.train(matrix(table))
    order = np.random.default_rng(1).permutation(len(table))
    index.add_with_ids(matrix(table)[order], table["id"].to_numpy()[order])
    faiss.write_index(index, str(folder / "dump.faiss"))
    return Made(str(folder / "dump.faiss"), DumpSettings(), table["id"].to_pylist(), None)


def lance(folder, table):
    import lancedb

    made = lancedb.connect(folder).create_table("docs", table.slice(0, 10))
    made.add(table.slice(10))
    return Made(str(folder), DumpSettings(), table["id"].to_pylist(), expected(table))


def vdf(folder, table):
    (folder / "docs.parquet").mkdir()
    pq.write_table(table.slice(0, 10), folder / "docs.parquet" / "1.parquet")
    pq.write_table(table.slice(10), folder / "docs.parquet" / "2.parquet")
    entry = {
        "namespace": "",
        "total_vector_count": len(table),
        "exported_vector_count": len(table),
        "dimensions": matrix(table).shape[1],
        "model_name": "a-model",
        "vector_columns": ["embedding"],
        "data_path": f"{folder.name}/docs.parquet",
        "metric": "Cosine",
    }
    meta = {"version": "0.1", "file_structure": [], "author": "", "exported_from": "", "indexes": {"docs": [entry]}}
    (folder / "VDF_META.json").write_text(json.dumps(meta))
    return Made(str(folder), DumpSettings(), table["id"].to_pylist(), expected(table))


def qdrant(folder, table):
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    client.create_collection("docs", models.VectorParams(size=matrix(table).shape[1], distance=models.Distance.DOT))
    client.upsert("docs", [
        models.PointStruct(id=row.pop("id"), vector=row.pop("embedding"), payload=row) for row in rows_of(table)
    ])  # fmt: skip
    client.close()
    return Made(str(folder), DumpSettings(), table["id"].to_pylist(), expected(table))


def chroma(folder, table):
    import chromadb

    client = chromadb.PersistentClient(folder, chromadb.config.Settings(anonymized_telemetry=False))
    ids = [f"doc {each}" for each in table["id"].to_pylist()]
    client.create_collection("docs", embedding_function=None).add(
        ids=ids, embeddings=matrix(table), metadatas=table.select(METADATA).to_pylist(), documents=list(ids)
    )
    client.close()
    return Made(str(folder), DumpSettings(), ids, expected(table) | {"document": ids})


FILES_AND_FOLDERS = (
    npy, npy_fortran, npz, parquet, parquet_folder, arrow_file, arrow_stream, json_lines, json_lines_gz,
    json_lines_zst, csv_cells, csv_columns, faiss_flat, faiss_with_ids, faiss_inverted, lance, vdf, qdrant, chroma,
)  # fmt: skip


def postgres(server, table):
    import psycopg

    with psycopg.connect(server) as connection:
        connection.execute("DROP TABLE IF EXISTS docs")
        connection.execute("CREATE TABLE docs (page int, embedding vector(6), text text, id bigint PRIMARY KEY)")
        for row in reversed(rows_of(table)):
            values = [row["page"], str(row["embedding"]), row["text"], row["id"]]
            connection.execute("INSERT INTO docs VALUES (%s, %s, %s, %s)", values)
    return Made(server, DumpSettings(name="docs"), table["id"].to_pylist(), expected(table))


def matrix(table):
    return np.stack(table["embedding"].to_numpy())


def texts_of(table):
    return {name: [str(each) for each in values] for name, values in expected(table).items()}


@pytest.fixture(scope="module", params=[*(make.__name__ for make in FILES_AND_FOLDERS), "postgres"])
def made(request, tmp_path_factory, table):
    if request.param == "postgres":
        return postgres(request.getfixturevalue("server"), table)
    make = next(each for each in FILES_AND_FOLDERS if each.__name__ == request.param)
    return make(tmp_path_factory.mktemp(request.param), table)


def read(made, rows, metadata=True):
    parts = open_dump(made.address, made.settings).parts()
    return [block for part in parts for block in part.blocks(rows, metadata)]


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_ids_vectors_and_metadata_come_back_in_order(made, vectors, rows):
    blocks = read(made, rows)
    assert all(0 < len(block) <= rows for block in blocks)
    assert [each for block in blocks for each in block.ids.to_pylist()] == made.ids
    assert {block.ids.type for block in blocks} == {pa.int64() if isinstance(made.ids[0], int) else pa.string()}
    for block in blocks:
        assert block.vectors.dtype == np.float32 and block.vectors.flags.c_contiguous
        assert len(block.ids) == len(block)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    if made.metadata is None:
        assert all(block.metadata is None for block in blocks)
        return
    read_back = pa.concat_tables([block.metadata for block in blocks], promote_options="permissive")
    assert set(read_back.column_names) == set(made.metadata)
    assert read_back.select(list(made.metadata)).to_pydict() == made.metadata


def test_metadata_that_nobody_wants_is_not_read(made, vectors):
    blocks = read(made, 1000, metadata=False)
    assert all(block.metadata is None for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    made = Made(made.address, made.settings.model_copy(update={"metadata": []}), made.ids, None)
    assert all(block.metadata is None for block in read(made, 1000))


def test_a_part_that_went_through_a_pickle_gives_the_same_rows(made, vectors):
    parts = open_dump(made.address, made.settings).parts()
    again = pickle.loads(pickle.dumps(parts))  # noqa: S301 -- our own
    blocks = [block for part in again for block in part.blocks(5)]
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    assert [each for block in blocks for each in block.ids.to_pylist()] == made.ids


def test_parts_say_how_many_rows_they_have_or_that_it_is_not_known(made):
    for part in open_dump(made.address, made.settings).parts():
        assert part.rows in (None, sum(map(len, part.blocks(4))))
        assert made.address in part.name


def test_reading_that_ends_early_leaves_the_dump_readable(made, vectors):
    part = open_dump(made.address, made.settings).parts()[0]
    blocks = part.blocks(2)
    next(blocks)
    blocks.close()
    np.testing.assert_array_equal(next(part.blocks(1)).vectors, vectors[:1])
