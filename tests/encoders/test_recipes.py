"""Each family's recipe against a computation by hand: plain transformers, then pooling, Dense, truncation and L2.

By hand a text is encoded alone, without padding; the adapter gets texts of different lengths together, so that padding
stands on the side of the family. S tokens, H hidden, D embedding.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from embinv.data.alignment import align
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import open_encoder, open_tokenizer
from embinv.encoders.spec import EncoderSpec
from tests.encoders.tiny_models import (
    GEMMA_PROMPTS,
    JINA_PROMPTS,
    QWEN3_PROMPTS,
    tiny_embeddinggemma,
    tiny_jina_v3_native,
    tiny_jina_v3_with_code,
    tiny_qwen3,
)

TEXTS = [
    "Anna wohnt in Köln.",
    "The payment of 1,200 EUR from ACME Corp. was returned because the account had been closed.",
    "ok",
    "彼女は毎朝コーヒーを飲みます。 Она пишет письмо.",
    "Dr. Weber moved it.",
]


def hidden_states(folder, text):
    """The backbone's last layer for one text [S, H]."""
    ids = AutoTokenizer.from_pretrained(str(folder))(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return AutoModel.from_pretrained(str(folder)).eval()(ids).last_hidden_state[0]


def last_token(folder, text):
    return hidden_states(folder, text)[-1].numpy()


def mean(folder, text):
    return hidden_states(folder, text).mean(dim=0).numpy()


def mean_and_dense(folder, text):
    vector = mean(folder, text)
    for name in ("2_Dense", "3_Dense"):
        vector = load_file(str(folder / name / "model.safetensors"))["linear.weight"].numpy() @ vector
    return vector


def shifted_mean(folder, text):
    return mean(folder, text) + 0.5  # what custom_st.py does for retrieval.passage


PASSAGE = {"task": "retrieval.passage", "trust_remote_code": True}
RECIPES = {
    "qwen3-document": (tiny_qwen3, last_token, {}, ""),
    "qwen3-query": (tiny_qwen3, last_token, {"prompt_name": "query"}, QWEN3_PROMPTS["query"]),
    "embeddinggemma-document": (
        tiny_embeddinggemma,
        mean_and_dense,
        {"prompt_name": "document"},
        GEMMA_PROMPTS["document"],
    ),
    "embeddinggemma-query": (tiny_embeddinggemma, mean_and_dense, {"prompt_name": "query"}, GEMMA_PROMPTS["query"]),
    "jina-v3-passage": (
        tiny_jina_v3_with_code,
        shifted_mean,
        {"prompt_name": "retrieval.passage"} | PASSAGE,
        JINA_PROMPTS["retrieval.passage"],
    ),
    "jina-v3-passage-without-prompt": (tiny_jina_v3_with_code, shifted_mean, PASSAGE, ""),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    builders = {builder for builder, *_ in RECIPES.values()}
    made = {builder: tmp_path_factory.mktemp(builder.__name__) for builder in builders}
    for builder, folder in made.items():
        builder(folder)
    return made


@pytest.fixture(params=RECIPES)
def recipe(request, folders):
    """A function that opens the recipe at some dimension, and the vectors by hand before truncation [N, H]."""
    builder, by_hand, given, prompt = RECIPES[request.param]
    folder = folders[builder]

    def opened(dim=32, **more):
        return open_encoder(EncoderSpec(model=str(folder), dim=dim, **given, **more))

    return opened, np.stack([by_hand(folder, prompt + text) for text in TEXTS])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_equal_those_by_hand_with_padding_in_the_batch(recipe):
    opened, by_hand = recipe
    encoder = opened()
    assert len(set(encoder.tokenizer(TEXTS).lengths.tolist())) > 1
    assert np.abs(encoder.encode(TEXTS) - unit(by_hand)).max() < 1e-5


def test_truncation_comes_first_and_unit_length_after_it(recipe):
    opened, by_hand = recipe
    vectors = opened(dim=8).encode(TEXTS)
    assert np.abs(vectors - unit(by_hand[:, :8])).max() < 1e-5
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_truncated_vectors_keep_the_models_scale_if_the_recipe_says_so(recipe):
    opened, by_hand = recipe
    assert np.abs(opened(dim=8, normalized=False).encode(TEXTS) - unit(by_hand)[:, :8]).max() < 1e-5


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_vectors_do_not_depend_on_the_batch(recipe, batch_tokens):
    opened, by_hand = recipe
    encoder = opened()
    encoder.batch_tokens = batch_tokens
    order = [3, 1, 4, 0, 2]
    assert np.abs(encoder.encode([TEXTS[i] for i in order]) - unit(by_hand)[order]).max() < 1e-5


def test_sentence_transformers_own_encode_gives_the_same(recipe):
    opened, _ = recipe
    encoder = opened(dim=8)
    spec = encoder.spec
    prompt = {} if spec.prompt_name is None else {"prompt_name": spec.prompt_name}
    task = {} if spec.task is None else {"task": spec.task}
    theirs = encoder.model.encode(TEXTS, truncate_dim=8, normalize_embeddings=True, **prompt, **task)
    assert np.abs(encoder.encode(TEXTS) - theirs).max() < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_last_token_is_found_on_either_side_of_the_padding(tmp_path, side):
    tiny_qwen3(tmp_path, padding_side=side)
    encoder = open_encoder(EncoderSpec(model=str(tmp_path), dim=32))
    assert encoder.tokenizer.padding_side == side
    by_hand = unit(np.stack([last_token(tmp_path, text) for text in TEXTS]))
    assert np.abs(encoder.encode(TEXTS) - by_hand).max() < 1e-5


def test_task_decides_the_vector(folders):
    def vectors(task):
        folder = str(folders[tiny_jina_v3_with_code])
        return open_encoder(EncoderSpec(model=folder, dim=32, task=task, trust_remote_code=True)).encode(TEXTS)

    assert np.abs(vectors("retrieval.passage") - vectors("retrieval.query")).max() > 0.01
    assert np.abs(vectors("retrieval.passage") - vectors(None)).max() > 0.01


def test_models_code_is_not_run_without_trust(folders):
    with pytest.raises(ValueError, match="trust_remote_code"):
        open_encoder(EncoderSpec(model=str(folders[tiny_jina_v3_with_code]), dim=32))


def test_pooling_that_leaves_the_prompt_out_does_so(tmp_path):
    tiny_embeddinggemma(tmp_path)
    pooling = tmp_path / "1_Pooling/config.json"
    pooling.write_text(pooling.read_text().replace('"include_prompt": true', '"include_prompt": false'))
    encoder = open_encoder(EncoderSpec(model=str(tmp_path), dim=32, prompt_name="document"))
    prompt = GEMMA_PROMPTS["document"]
    theirs = encoder.model.encode(TEXTS, prompt=prompt)
    assert np.abs(encoder.encode(TEXTS) - theirs).max() < 1e-5
    length = len(AutoTokenizer.from_pretrained(str(tmp_path))(prompt)["input_ids"]) - 1  # its <eos> is not there
    vector = hidden_states(tmp_path, prompt + TEXTS[0])[length:].mean(dim=0).numpy()
    for name in ("2_Dense", "3_Dense"):
        vector = load_file(str(tmp_path / name / "model.safetensors"))["linear.weight"].numpy() @ vector
    assert np.abs(encoder.encode(TEXTS)[0] - unit(vector[None])[0]).max() < 1e-5


def test_prompt_is_in_the_vector_and_not_in_the_target_text(folders):
    folder = folders[tiny_embeddinggemma]
    spec = EncoderSpec(model=str(folder), dim=32, prompt_name="document")
    prompt = GEMMA_PROMPTS["document"]
    decoder = TextTokenizer(str(folder))
    aligned = align(TEXTS, decoder.fast, seq_len=64, min_tokens=1)
    assert list(aligned.texts) == TEXTS
    assert [decoder.decode(ids) for ids in aligned.token_ids] == TEXTS

    tokens = open_tokenizer(spec)(aligned.texts)
    prompted = AutoTokenizer.from_pretrained(str(folder))([prompt + text for text in TEXTS])["input_ids"]
    assert tokens.to_arrow().to_pylist() == prompted
    vectors = open_encoder(spec).encode_tokens(tokens)
    by_hand = unit(np.stack([mean_and_dense(folder, prompt + text) for text in TEXTS]))
    assert np.abs(vectors - by_hand).max() < 1e-5
    bare = unit(np.stack([mean_and_dense(folder, text) for text in TEXTS]))
    assert np.abs(vectors - bare).max() > 0.01


def test_task_adapter_of_a_native_jina_v3_is_switched_on(tmp_path):
    peft = pytest.importorskip("peft")
    tiny_jina_v3_native(tmp_path)
    prompt = JINA_PROMPTS["retrieval.passage"]

    def by_hand(task, text):
        tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
        model = AutoModel.from_pretrained(str(tmp_path))
        model = peft.PeftModel.from_pretrained(model, str(tmp_path / task)).merge_and_unload().eval()
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()

    for task, folder in (("retrieval.passage", "retrieval_passage"), ("text-matching", "text_matching")):
        spec = EncoderSpec(model=str(tmp_path), dim=8, task=task, prompt=prompt)
        expected = unit(np.stack([by_hand(folder, prompt + text)[:8] for text in TEXTS]))
        assert np.abs(open_encoder(spec).encode(TEXTS) - expected).max() < 1e-5
    with pytest.raises(ValueError, match=r"takes no task and has no adapter 'separation'"):
        open_encoder(EncoderSpec(model=str(tmp_path), dim=8, task="separation"))
