import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embinv.encoders.base import open_tokenizer
from embinv.encoders.spec import EncoderSpec, resolve_model
from embinv.encoders.tokenizer_files import load_tokenizer
from embinv.encoders.tokens import Tokens
from tests.encoders.tiny_models import tiny_embeddinggemma, tiny_jina_v3_with_code, tiny_qwen3
from tests.fakes import MINILM

TEXTS = ["Anna Müller lives in Köln.", "ok", "", "a much longer text " * 100, "彼女は毎朝 one \U0001f642"]
FAMILIES = {"qwen3": tiny_qwen3, "embeddinggemma": tiny_embeddinggemma, "jina-v3": tiny_jina_v3_with_code}


def tokens_of(*lists):
    """Tokens of texts that are given as lists of ids."""
    lengths = [len(ids) for ids in lists]
    flat = np.array([token for ids in lists for token in ids], dtype=np.int32)
    return Tokens(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def lists_of(tokens):
    return [tokens.flat[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in FAMILIES}
    for name, folder in folders.items():
        FAMILIES[name](folder)
    return folders


@pytest.fixture
def copied(families, tmp_path):
    """A model's files that a test may change, and the recipe that names them."""
    shutil.copytree(families["qwen3"], tmp_path / "model")
    return tmp_path / "model", EncoderSpec(model=str(tmp_path / "model"), dim=32)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_lengths_and_count_are_those_of_the_texts():
    tokens = tokens_of([1, 2, 3], [], [4])
    assert len(tokens) == 3
    assert tokens.lengths.tolist() == [3, 0, 1]


@pytest.mark.parametrize("lists", [[[1, 2, 3], [], [4]], [], [[]]], ids=str)
def test_arrow_column_holds_the_same_lists_and_gives_them_back(lists):
    column = tokens_of(*lists).to_arrow()
    assert column.type == pa.list_(pa.int32())
    assert column.to_pylist() == lists
    assert lists_of(Tokens.from_arrow(column)) == lists


def test_slices_and_chunks_of_a_column_are_read_as_what_they_show():
    column = tokens_of([1, 2, 3], [4], [], [5, 6]).to_arrow()
    assert lists_of(Tokens.from_arrow(column.slice(1, 2))) == [[4], []]
    assert lists_of(Tokens.from_arrow(pa.chunked_array([column.slice(3), column.slice(0, 1)]))) == [[5, 6], [1, 2, 3]]
    assert lists_of(Tokens.from_arrow(pa.chunked_array([], column.type))) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", [None, "query: "], ids=str)
def test_ids_equal_those_of_the_models_own_tokenizer(families, family, prompt):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(str(families[family]))
    ours = load_tokenizer(EncoderSpec(model=str(families[family]), dim=32, prompt=prompt, max_tokens=50))
    expected = own([(prompt or "") + text for text in TEXTS], truncation=True, max_length=50)["input_ids"]
    assert lists_of(ours(TEXTS)) == expected
    assert ours(TEXTS).lengths.max() == 50


def test_files_that_ask_for_padding_and_truncation_get_neither():
    stored = json.loads((Path(resolve_model(MINILM)) / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["padding"]["strategy"] == {"Fixed": 128}
    assert stored["truncation"]["max_length"] == 128
    tokens = load_tokenizer(EncoderSpec(model=MINILM, dim=384))(["ok", "long " * 1000])
    assert tokens.lengths.tolist() == [3, 256]  # sentence_bert_config.json says 256


def test_texts_may_be_an_array_and_none_at_all(families):
    tokenizer = load_tokenizer(EncoderSpec(model=str(families["qwen3"]), dim=32))
    assert lists_of(tokenizer(np.array(TEXTS, dtype=object))) == lists_of(tokenizer(TEXTS))
    assert len(tokenizer([])) == 0


def test_each_family_ends_and_begins_its_texts_as_its_model_does(families):
    def ends(family):
        tokenizer = load_tokenizer(EncoderSpec(model=str(families[family]), dim=32))
        ids = lists_of(tokenizer(["ok"]))[0]
        names = tokenizer.backend.id_to_token
        return names(ids[0]), names(ids[-1]), tokenizer.padding_side, names(tokenizer.pad_id)

    assert ends("qwen3")[1:] == ("<|endoftext|>", "left", "<|endoftext|>")
    assert ends("embeddinggemma") == ("<bos>", "<eos>", "right", "<pad>")
    assert ends("jina-v3") == ("<s>", "</s>", "right", "<pad>")


@pytest.mark.parametrize(
    ("family", "recipe", "prompt"),
    [
        ("qwen3", {}, ""),
        (
            "qwen3",
            {"prompt_name": "query"},
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        ),
        ("qwen3", {"prompt_name": "document"}, ""),
        ("embeddinggemma", {"prompt_name": "document"}, "title: none | text: "),
        ("jina-v3", {"prompt_name": "retrieval.passage"}, "Represent the document for retrieval: "),
        ("jina-v3", {"prompt": "mine: "}, "mine: "),
    ],
)
def test_prompt_is_the_recipes_or_the_models_own_of_that_name(families, family, recipe, prompt):
    assert load_tokenizer(EncoderSpec(model=str(families[family]), dim=32, **recipe)).prompt == prompt


def test_models_default_prompt_stands_where_the_recipe_names_none(copied):
    folder, spec = copied
    change(folder / "config_sentence_transformers.json", default_prompt_name="query")
    assert load_tokenizer(spec).prompt.startswith("Instruct: ")
    assert load_tokenizer(spec.model_copy(update={"prompt": ""})).prompt == ""


def test_prompt_that_the_model_does_not_have_is_refused_with_those_that_it_has(families):
    with pytest.raises(ValueError, match=r"encoder.prompt_name 'passage': .* has the prompts \['document', 'query'\]"):
        load_tokenizer(EncoderSpec(model=str(families["qwen3"]), dim=32, prompt_name="passage"))


def test_lower_case_is_made_where_the_model_asks_for_it(copied):
    folder, spec = copied
    plain = lists_of(load_tokenizer(spec)(["anna"]))
    assert lists_of(load_tokenizer(spec)(["ANNA"])) != plain
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    assert lists_of(load_tokenizer(spec)(["ANNA"])) == plain


def test_limit_is_the_models_positions_where_the_layout_names_none(copied):
    folder, spec = copied
    (folder / "sentence_bert_config.json").unlink()
    assert load_tokenizer(spec).max_tokens == 512  # max_position_embeddings of config.json


@pytest.mark.parametrize(("asked", "kept"), [(100, 100), (100000, 512)])
def test_limit_of_the_recipe_never_raises_that_of_the_model(families, asked, kept):
    spec = EncoderSpec(model=str(families["qwen3"]), dim=32, max_tokens=asked)
    assert load_tokenizer(spec).max_tokens == kept


def test_tokenizer_without_padding_is_refused(copied):
    folder, spec = copied
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    del stored["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    change(folder / "tokenizer.json", padding=None)
    with pytest.raises(ValueError, match="has no padding token"):
        load_tokenizer(spec)


def test_folder_without_a_tokenizer_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"encoder.model .* cannot be loaded.* Give a hub id"):
        load_tokenizer(EncoderSpec(model=str(tmp_path), dim=32))


@pytest.mark.parametrize(
    "recipe", [{"kind": "hash"}, {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}], ids=lambda r: r["kind"]
)
def test_kinds_that_take_texts_have_no_tokenizer(recipe):
    assert open_tokenizer(EncoderSpec(model="some", dim=8, **recipe)) is None
