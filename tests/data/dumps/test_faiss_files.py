"""Indexes of FAISS: which give vectors back, and what is said of those that do not."""

import faiss
import numpy as np
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import open_dump

DIM = 8


@pytest.fixture(scope="module")
def many():
    """[300, DIM], enough to train a quantiser of 4 bits."""
    return np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32)


def written(path, description, vectors, ids=None):
    index = faiss.index_factory(DIM, description)
    index.train(vectors)
    index.add(vectors) if ids is None else index.add_with_ids(vectors, ids)
    faiss.write_index(index, str(path))
    return str(path)


def read(path, rows=64):
    (part,) = open_dump(path).parts()
    blocks = list(part.blocks(rows))
    ids = np.concatenate([block.ids.to_numpy() for block in blocks])
    return part, ids, np.concatenate([block.vectors for block in blocks])


@pytest.mark.parametrize("description", ["Flat", "HNSW8", "IVF4,Flat", "Flat,RFlat", "IDMap,Flat", "IDMap,IVF4,Flat"])
@pytest.mark.parametrize("rows", [7, 1000])
def test_an_index_that_keeps_vectors_gives_them_back_as_they_were(tmp_path, many, description, rows):
    ids = np.arange(300)[::-1] * 5 if "IDMap" in description else None
    part, found, vectors = read(written(tmp_path / "a.faiss", description, many, ids), rows)
    assert found.tolist() == list(range(300) if ids is None else ids)
    np.testing.assert_array_equal(vectors, many)
    assert part.rows == 300 and part.name == str(tmp_path / "a.faiss")


@pytest.mark.parametrize("description", ["PQ4x4np", "SQ8", "IVF4,PQ4x4np", "IVF4,SQ8", "HNSW8_SQ8", "PCA4,Flat"])
def test_an_index_that_keeps_codes_gives_approximations_and_says_so(tmp_path, many, caplog, description):
    part, _, vectors = read(written(tmp_path / "a.faiss", description, many))
    assert "(approximate, Index" in part.name and "approximations" in caplog.text
    assert vectors.shape == many.shape
    assert 0 < np.abs(vectors - many).mean() < np.abs(many).mean()


@pytest.mark.parametrize("description", ["LSH", "PQ4x4fs", "IVF4,PQ4x4fs", "RaBitQ"])
def test_an_index_that_gives_none_back_is_refused(tmp_path, many, description):
    path = written(tmp_path / "a.faiss", description, many)
    with pytest.raises(ValueError, match=rf"--vectors {path}: Index\w+ gives no vectors back; give the vectors"):
        open_dump(path).parts()


def test_a_binary_index_is_refused(tmp_path):
    index = faiss.IndexBinaryFlat(16)
    index.add(np.zeros((5, 2), np.uint8))
    faiss.write_index_binary(index, str(tmp_path / "a.faiss"))
    with pytest.raises(ValueError, match="is a binary index, which keeps bits and not vectors"):
        open_dump(str(tmp_path / "a.faiss")).parts()


def test_two_vectors_of_one_id_in_an_inverted_file_are_refused(tmp_path, many):
    path = written(tmp_path / "a.index", "IVF4,Flat", many, np.arange(300) // 2)
    with pytest.raises(ValueError, match="has ids by which its vectors cannot be told"):
        open_dump(path).parts()


def test_an_index_that_was_cut_cannot_be_opened(tmp_path, many):
    path = written(tmp_path / "a.faiss", "Flat", many)
    (tmp_path / "a.faiss").write_bytes((tmp_path / "a.faiss").read_bytes()[:-100])
    with pytest.raises(BrokenDump, match=r"a.faiss: is damaged or cut short at row 0 .*; fetch it anew"):
        open_dump(path).parts()


def test_what_is_no_index_is_said(tmp_path):
    (tmp_path / "notes.index").write_text("a list of words")
    with pytest.raises(ValueError, match=r"is no index of FAISS; write it with faiss.write_index"):
        open_dump(str(tmp_path / "notes.index")).parts()
