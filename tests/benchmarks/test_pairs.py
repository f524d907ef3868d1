import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.pairs import encode_pairs, random_pairs, read_texts, write_pairs
from embinv.config import build_config
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe
from embinv.data.settings import DataSettings
from embinv.encoders.hashing import HashEncoder
from jobs.outputs import SUCCESS_FILE
from tests.fakes import sentences, word_tokenizer

DATA = DataSettings(min_chars=5, max_chars=30)


def test_random_texts_end_with_eos_and_pad_and_hold_neither_before():
    pairs = random_pairs(200, 50, 16, 8, (7, 3))
    for row in pairs.token_ids.tolist():
        end = row.index(7)
        assert 8 <= end <= 15
        assert row[end + 1 :] == [3] * (15 - end)
        assert not {3, 7} & set(row[:end])
    np.testing.assert_allclose(np.linalg.norm(pairs.embeddings.astype(np.float32), axis=1), 1.0, atol=1e-3)


def test_texts_are_cleaned_filtered_and_seen_once(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("A good  text\nshrt\na good text\nanother text\n" + 50 * "x" + "\n\n", encoding="utf-8")
    ids, texts, langs = read_texts(path, None, DATA)
    assert sorted(texts) == ["A good text", "another text"]
    assert len(set(ids.tolist())) == 2
    assert set(langs) == {"und"}


def test_parquet_brings_its_languages_and_rows_are_the_same_each_time(tmp_path):
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"text": [f"text number {i}" for i in range(20)], "lang": ["en", "de"] * 10}), path)
    _, texts, langs = read_texts(path, 5, DATA)
    assert len(texts) == 5
    assert all(lang == ("de" if int(text.split()[-1]) % 2 else "en") for text, lang in zip(texts, langs, strict=True))
    assert read_texts(path, 5, DATA)[1].tolist() == texts.tolist()


def test_what_cannot_be_read_is_told_with_its_fix(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_texts(tmp_path / "none.txt", None, DATA)
    pq.write_table(pa.table({"body": ["a text"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no column 'text'; it has body"):
        read_texts(tmp_path / "other.parquet", None, DATA)
    (tmp_path / "short.txt").write_text("ab\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no text of 5 to 30 characters"):
        read_texts(tmp_path / "short.txt", None, DATA)


@pytest.fixture
def config(tmp_path):
    tokenizer = word_tokenizer(tmp_path / "words")
    return tokenizer, build_config(
        {
            "name": "hashed",
            "encoder": {"kind": "hash", "model": "hash", "dim": 16},
            "data": {"tokenizer": tokenizer.source, "seq_len": 8, "min_tokens": 2, "validation": 0.2, "test": 0.2},
        },
        [],
        "here",
    )


def test_encoded_pairs_are_aligned_divided_and_read_back(config, tmp_path):
    tokenizer, chosen = config
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(sentences(60)), encoding="utf-8")
    splits, rate = encode_pairs(chosen, tokenizer, path, 50)
    assert rate > 0
    assert sum(map(len, splits.values())) == 50
    assert all(len(pairs) for pairs in splits.values())
    everything = [text for pairs in splits.values() for text in pairs.texts]
    assert len(set(everything)) == 50
    encoder = HashEncoder(chosen.encoder)
    for pairs in splits.values():
        np.testing.assert_allclose(pairs.embeddings, encoder.encode(pairs.texts), atol=1e-3)
        assert [tokenizer.decode(ids) for ids in pairs.token_ids.tolist()] == pairs.texts

    recipe = chosen.pairs_recipe(tokenizer)
    write_pairs(tmp_path / "pairs", recipe, splits)
    assert read_recipe(tmp_path / "pairs") == recipe
    assert (tmp_path / "pairs" / SUCCESS_FILE).is_file()  # without it, jobs/train.py takes them for unfinished
    for name, pairs in splits.items():
        found = read_pairs(tmp_path / "pairs", name)
        assert sorted(found.texts) == sorted(pairs.texts)
        order = np.argsort(pairs.ids)
        np.testing.assert_array_equal(found.token_ids, pairs.token_ids[order])
        np.testing.assert_array_equal(found.embeddings, pairs.embeddings[order])


def test_texts_too_short_for_the_decoder_are_told(config, tmp_path):
    tokenizer, chosen = config
    path = tmp_path / "texts.txt"
    path.write_text("one-word-of-twenty-letters\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"lower data\.min_tokens"):
        encode_pairs(chosen, tokenizer, path, None)
