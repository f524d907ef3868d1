import numpy as np
import pyarrow.parquet as pq
import pytest

from embinv.data.corrections import (
    HYPOTHESES_KEY,
    Corrections,
    HypothesesRecipe,
    corrections_schema,
    end_marked,
    read_corrections,
    read_hypotheses_recipe,
)
from embinv.data.pairs import read_pairs
from embinv.data.schema import pairs_schema, read_recipe
from embinv.encoders.hashing import HashEncoder
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, word_tokenizer, write_pairs

MADE_BY = HypothesesRecipe(inverter="tiny", weights="0123456789abcdef", strategy="confidence", steps=8, seed=0)
ROWS, LENGTH, DIM = 9, 8, 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A recipe, and rows whose hypotheses are other sentences."""
    tokenizer, encoder = word_tokenizer(tmp_path_factory.mktemp("words")), HashEncoder(hash_spec(DIM))
    texts = sentences(2 * ROWS)
    pairs, said = pairs_of(texts[:ROWS], tokenizer, encoder), pairs_of(texts[ROWS:], tokenizer, encoder)
    return recipe_for(tokenizer, hash_spec(DIM)), Corrections(pairs, said.texts, said.token_ids, said.embeddings)


def taken(corrections, rows):
    rows = np.asarray(rows)
    return Corrections(
        corrections.pairs.take(rows),
        [corrections.hypotheses[row] for row in rows],
        corrections.hypothesis_ids[rows],
        corrections.hypothesis_embeddings[rows],
    )


def write(folder, recipe, corrections, name="a.parquet", split="train"):
    path = folder / f"split={split}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(corrections.to_arrow(recipe, MADE_BY), path)
    return path


def test_rows_come_back_from_the_disk_sorted_by_id_each_with_its_own_hypothesis(made, tmp_path):
    recipe, corrections = made
    write(tmp_path, recipe, taken(corrections, [7, 2, 0]))
    write(tmp_path, recipe, taken(corrections, [5, 8, 1]), "b.parquet")
    write(tmp_path, recipe, taken(corrections, [3]), split="validation")
    read, rows = read_corrections(tmp_path, "train"), [0, 1, 2, 5, 7, 8]
    assert read.pairs.ids.tolist() == rows
    assert read.pairs.texts == [corrections.pairs.texts[row] for row in rows]
    assert read.hypotheses == [corrections.hypotheses[row] for row in rows]
    np.testing.assert_array_equal(read.hypothesis_ids, corrections.hypothesis_ids[rows])
    np.testing.assert_array_equal(read.hypothesis_embeddings, corrections.hypothesis_embeddings[rows])
    assert (read.hypothesis_ids.dtype, read.hypothesis_embeddings.dtype) == (np.int32, np.float16)
    assert read_corrections(tmp_path, "validation").pairs.ids.tolist() == [3]


def test_the_schema_is_that_of_pairs_and_more_so_pairs_are_read_from_it_too(made, tmp_path):
    recipe, corrections = made
    schema = corrections_schema(recipe, MADE_BY)
    assert list(schema)[:5] == list(pairs_schema(recipe)) and not any(field.nullable for field in schema)
    assert schema.names[5:] == ["hypothesis", "hypothesis_ids", "hypothesis_embedding"]
    write(tmp_path, recipe, corrections)
    pairs = read_pairs(tmp_path, "train")
    assert pairs.texts == corrections.pairs.texts
    np.testing.assert_array_equal(pairs.token_ids, corrections.pairs.token_ids)
    assert (read_recipe(tmp_path), read_hypotheses_recipe(tmp_path)) == (recipe, MADE_BY)


def test_joined_puts_the_hypothesis_before_the_text_and_the_wanted_vector_before_its_own(made):
    _, corrections = made
    joined = corrections.joined()
    assert joined.token_ids.shape == (ROWS, 2 * LENGTH) and joined.embeddings.shape == (ROWS, 2 * DIM)
    np.testing.assert_array_equal(joined.token_ids[:, :LENGTH], corrections.hypothesis_ids)
    np.testing.assert_array_equal(joined.token_ids[:, LENGTH:], corrections.pairs.token_ids)
    np.testing.assert_array_equal(joined.embeddings[:, :DIM], corrections.pairs.embeddings)
    np.testing.assert_array_equal(joined.embeddings[:, DIM:], corrections.hypothesis_embeddings)
    assert (joined.token_ids.dtype, joined.embeddings.dtype) == (np.int32, np.float16)
    assert joined.texts == corrections.pairs.texts and joined.ids.tolist() == corrections.pairs.ids.tolist()


def test_pairs_without_hypotheses_are_refused_with_the_job_that_makes_them(made, tmp_path):
    recipe, corrections = made
    write_pairs(tmp_path, recipe, corrections.pairs)
    for read in (read_hypotheses_recipe, lambda folder: read_corrections(folder, "train")):
        with pytest.raises(ValueError, match=r"holds pairs without hypotheses.*jobs/hypotheses\.py"):
            read(tmp_path)


def test_a_folder_of_nothing_and_an_absent_split_are_refused(made, tmp_path):
    with pytest.raises(ValueError, match="holds no pairs"):
        read_hypotheses_recipe(tmp_path)
    write(tmp_path, *made)
    with pytest.raises(ValueError, match="no rows in split=validation"):
        read_corrections(tmp_path, "validation")


@pytest.mark.parametrize(
    ("content", "reason"), [(b'{"inverter": "tiny"}', "weights: Field required"), (b"{", "Invalid JSON")]
)
def test_another_versions_description_is_refused_with_the_field(made, tmp_path, content, reason):
    recipe, corrections = made
    file = write(tmp_path, recipe, corrections)
    table = pq.read_table(file, partitioning=None)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, HYPOTHESES_KEY: content}), file)
    with pytest.raises(ValueError, match=f"a.parquet names its hypotheses in another version's way: .*{reason}"):
        read_corrections(tmp_path, "train")


def test_ids_end_with_one_eos_and_then_padding_whatever_their_length():
    table = end_marked([[5, 6], [], [5, 6, 7], [5, 6, 7, 8, 9]], 4, eos_id=1, pad_id=0)
    assert table.tolist() == [[5, 6, 1, 0], [1, 0, 0, 0], [5, 6, 7, 1], [5, 6, 7, 1]]
    assert table.dtype == np.int32
    assert end_marked([], 4, eos_id=1, pad_id=0).shape == (0, 4)
