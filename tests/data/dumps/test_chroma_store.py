"""Folders of Chroma: collections, and that a folder without one stays without."""

import chromadb
import pytest
from chromadb.config import Settings

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.chroma_store import ChromaDump
from embinv.data.dumps.opening import DumpSettings, open_dump


@pytest.fixture
def client(tmp_path):
    client = chromadb.PersistentClient(tmp_path / "db", Settings(anonymized_telemetry=False, migrations="validate"))
    yield client
    client.close()


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory):
    """The first database is made by migrations, which later ones only validate."""


def fill(folder, **collections):
    client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
    for name, rows in collections.items():
        collection = client.create_collection(name, embedding_function=None)
        collection.add(ids=[f"i{row}" for row in range(rows)], embeddings=[[row, 1.5] for row in range(rows)])
    client.close()
    return str(folder)


def test_a_collection_is_chosen_by_its_name(tmp_path):
    address = fill(tmp_path, many=5, few=2)
    (part,) = open_dump(address, DumpSettings(name="few")).parts()
    (block,) = part.blocks(10)
    assert block.ids.to_pylist() == ["i0", "i1"] and block.vectors.tolist() == [[0, 1.5], [1, 1.5]]
    assert block.metadata.num_rows == 2 and block.metadata.column_names == []  # the rows have none
    with pytest.raises(ValueError, match="holds several, few, many; choose the collection with name"):
        open_dump(address).parts()


def test_a_collection_that_shrinks_while_it_is_read_ends_the_reading(tmp_path):
    address = fill(tmp_path, docs=6)
    (part,) = open_dump(address).parts()
    blocks = part.blocks(2)
    next(blocks)
    from embinv.data.dumps.chroma_store import _client

    with _client(address) as client:
        client.get_collection("docs", embedding_function=None).delete(ids=["i0"])
    with pytest.raises(BrokenDump, match=r"\(docs\): was changed .*, seen at row 2: it had 6 rows, now 5"):
        next(blocks)


def test_a_field_that_no_row_has_is_warned_of_once_all_are_read(tmp_path, caplog):
    client = chromadb.PersistentClient(tmp_path, Settings(anonymized_telemetry=False))
    collection = client.create_collection("docs", embedding_function=None)
    rows = {"ids": ["a", "b"], "embeddings": [[1, 2], [3, 4]], "documents": ["x", "y"]}
    collection.add(metadatas=[{"page": 1}, {"late": 2}], **rows)
    client.close()
    for names, warned in ((["document", "page", "late"], False), (["page", "typo"], True)):
        (part,) = open_dump(str(tmp_path), DumpSettings(metadata=names)).parts()
        assert [block.metadata.column_names for block in part.blocks(1)] == [names] * 2
        assert ("(docs): no row has 'typo'; mend metadata" in caplog.text) == warned


def test_a_folder_without_a_database_gets_none(tmp_path):
    with pytest.raises(BrokenDump, match=r"holds no chroma.sqlite3; give the folder"):
        ChromaDump(str(tmp_path), DumpSettings()).parts()
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_no_dump(tmp_path):
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(BrokenDump, match=r"--vectors .*: Chroma cannot open it"):
        open_dump(str(tmp_path)).parts()
