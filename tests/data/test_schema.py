import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.schema import (
    METADATA_KEY,
    PairsRecipe,
    fixed_size_list,
    matrix,
    pairs_schema,
    read_recipe,
    require_same_recipe,
)
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from tests.fakes import hash_spec, pairs_of, sentences, word_tokenizer, write_pairs

RECIPE = PairsRecipe(
    encoder=EncoderSpec(model="someone/encoder", revision="abc", dim=384, prompt="query: "),
    tokenizer="someone/tokenizer",
    tokenizer_hash="0123456789abcdef",
    vocab_size=30522,
    eos_id=102,
    pad_id=0,
    seq_len=32,
)


def changed(**changes):
    return RECIPE.model_copy(update=changes)


def test_contract_of_the_arrow_schema():
    schema = pairs_schema(RECIPE)
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("id", "int64", False),
        ("text", "string", False),
        ("lang", "string", False),
        ("token_ids", "fixed_size_list<item: int32>[32]", False),
        ("embedding", "fixed_size_list<item: halffloat>[384]", False),
    ]
    assert list(schema.metadata) == [b"embinv"]


def test_contract_of_the_recipes_json():
    assert json.loads(pairs_schema(RECIPE).metadata[METADATA_KEY]) == {
        "version": 1,
        "encoder": {
            "kind": "sentence-transformers",
            "model": "someone/encoder",
            "revision": "abc",
            "dim": 384,
            "prompt": "query: ",
            "prompt_name": None,
            "task": None,
            "normalized": True,
            "dtype": "float32",
            "max_tokens": None,
            "trust_remote_code": False,
            "base_url": None,
            "dimensions": None,
            "api_key_env": "OPENAI_API_KEY",
        },
        "tokenizer": "someone/tokenizer",
        "tokenizer_hash": "0123456789abcdef",
        "vocab_size": 30522,
        "eos_id": 102,
        "pad_id": 0,
        "seq_len": 32,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    pairs = pairs_of(sentences(5), tokenizer, HashEncoder(hash_spec(16)))
    recipe = changed(encoder=hash_spec(16), seq_len=8)
    return recipe, pairs


def test_recipe_comes_back_from_a_file_as_it_was_written(made, tmp_path):
    recipe, pairs = made
    write_pairs(tmp_path, recipe, pairs, split="validation")
    assert read_recipe(tmp_path) == recipe


def rewrite(path, metadata):
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)


def test_folder_without_pairs_is_refused_with_the_job_that_makes_them(tmp_path):
    with pytest.raises(ValueError, match=r"holds no pairs .* jobs/encode.py --out"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"other": "thing"}], ids=["none", "another key"])
def test_file_without_a_recipe_is_refused_and_named(made, tmp_path, metadata):
    path = write_pairs(tmp_path, *made)
    rewrite(path, metadata)
    with pytest.raises(ValueError, match=r"part-0.parquet carries no recipe"):
        read_recipe(tmp_path)


def test_recipe_of_another_version_is_refused_with_both_versions(made, tmp_path):
    recipe, pairs = made
    write_pairs(tmp_path, recipe.model_copy(update={"version": 2}), pairs)
    with pytest.raises(ValueError, match="version 2, this embinv reads 1; .* install the embinv that wrote it"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("text", ["not json", "{}", '{"version": 1, "surprise": 3}'])
def test_recipe_that_cannot_be_read_is_refused_in_one_line(made, tmp_path, text):
    path = write_pairs(tmp_path, *made)
    rewrite(path, {"embinv": text})
    with pytest.raises(ValueError, match="cannot read") as caught:
        read_recipe(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"seq_len": 16}, ["seq_len: 32 != 16"]),
        ({"tokenizer_hash": "f" * 16}, ["tokenizer_hash"]),
        ({"eos_id": 1, "pad_id": 5}, ["eos_id: 102 != 1", "pad_id: 0 != 5"]),
        ({"encoder": RECIPE.encoder.model_copy(update={"dim": 256})}, ["encoder.dim: 384 != 256"]),
        (
            {"encoder": RECIPE.encoder.model_copy(update={"prompt": None, "normalized": False}), "vocab_size": 7},
            ["encoder.prompt: 'query: ' != None", "encoder.normalized: True != False", "vocab_size: 30522 != 7"],
        ),
    ],
    ids=str,
)
def test_data_of_another_recipe_is_refused_naming_each_field_that_differs(other, names):
    with pytest.raises(ValueError, match="/data does not match the config") as caught:
        require_same_recipe(RECIPE, changed(**other), "/data", "the config")
    message = str(caught.value)
    assert [name for name in names if name not in message] == []
    assert message.count("!=") == len(names)


def test_equal_recipes_pass_and_where_the_tokenizer_was_found_does_not_matter():
    require_same_recipe(RECIPE, changed(tokenizer="/a/copy"), "/data", "the config")


def test_matrix_and_fixed_size_list_are_inverses_over_chunks():
    values = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float16)
    column = fixed_size_list(values, pa.float16())
    chunked = pa.chunked_array([column.slice(0, 3), column.slice(3, 0), column.slice(3)])
    for each in (column, chunked):
        assert np.array_equal(matrix(each, 4), values)
    assert matrix(chunked.slice(7), 4).shape == (0, 4)


def test_transposed_matrix_is_written_row_by_row():
    values = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert fixed_size_list(values, pa.int32()).to_pylist() == values.tolist()
