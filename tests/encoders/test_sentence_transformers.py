import numpy as np
import pytest
import torch

from embinv.encoders.arithmetic import multiplies_in_bfloat16
from embinv.encoders.base import TokenEncoder, open_encoder, open_tokenizer
from embinv.encoders.sentence_transformers import SentenceTransformersEncoder
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec, resolve_model
from embinv.encoders.tokens import EncoderTokenizer
from tests.encoders.tiny_models import tiny_qwen3
from tests.fakes import MINILM

TEXTS = [
    "Dr. Weber moved the appointment to May 4.",
    "ok",
    "The payment of 1,200 EUR from ACME Corp. was returned because the account had been closed in 2019.",
    "Anna Müller lives in Köln.",
    "",
    "a much longer text " * 60,
    "Anna Müller lives in Köln.",
]


@pytest.fixture(scope="module")
def reference():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(resolve_model(MINILM), device="cpu").eval()


@pytest.fixture(scope="module")
def expected(reference):
    return np.stack([reference.encode(text) for text in TEXTS])  # one at a time: no padding at all


def encoder(settings=None, **recipe):
    return open_encoder(EncoderSpec(**{"model": MINILM, "dim": 384} | recipe), settings=settings)


@pytest.fixture(scope="module")
def minilm():
    return encoder()


@pytest.mark.parametrize("batch_tokens", [1, 30, 1024, 100_000])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [2, 0, 5, 6, 1, 3, 4]], ids=str)
def test_vectors_equal_the_models_own_whatever_batch_and_order(minilm, expected, batch_tokens, order, monkeypatch):
    monkeypatch.setattr(minilm, "batch_tokens", batch_tokens)
    vectors = minilm.encode([TEXTS[i] for i in order])
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected[order]).max() < 1e-5


def test_truncated_vectors_are_the_first_numbers_scaled_to_unit_length(expected):
    vectors = encoder(dim=100).encode(TEXTS)
    by_hand = expected[:, :100] / np.linalg.norm(expected[:, :100], axis=1, keepdims=True)
    assert np.abs(vectors - by_hand).max() < 1e-5


def test_truncated_vectors_are_left_as_they_are_if_the_recipe_says_so(expected):
    vectors = encoder(dim=100, normalized=False).encode(TEXTS)
    assert np.abs(vectors - expected[:, :100]).max() < 1e-5
    assert np.linalg.norm(vectors, axis=1).max() < 0.95


def test_truncation_agrees_with_that_of_the_library(expected):
    from sentence_transformers import SentenceTransformer

    own = SentenceTransformer(resolve_model(MINILM), device="cpu", truncate_dim=64)
    theirs = own.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder(dim=64).encode(TEXTS) - theirs).max() < 1e-5


def test_prompt_stands_before_every_text(reference):
    prompted = encoder(prompt="query: ").encode(TEXTS)
    by_hand = np.stack([reference.encode("query: " + text) for text in TEXTS])
    assert np.abs(prompted - by_hand).max() < 1e-5


def test_limit_of_the_recipe_cuts_long_texts_only(expected):
    vectors = encoder(max_tokens=32).encode(TEXTS)
    apart = np.abs(vectors - expected).max(axis=1)
    assert apart[5] > 1e-3
    assert np.delete(apart, 5).max() < 1e-5


def test_half_precision_is_near_and_still_given_as_float32(expected):
    vectors = encoder(dtype="bfloat16").encode(TEXTS[:4])
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - expected[:4]).max() < 0.02
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_no_text_gives_no_row(minilm):
    assert minilm.encode([]).shape == (0, 384)


def test_tokens_made_elsewhere_give_the_same_vectors(minilm, expected):
    elsewhere = open_tokenizer(EncoderSpec(model=MINILM, dim=384))
    assert isinstance(minilm, TokenEncoder)
    assert np.abs(minilm.encode_tokens(elsewhere(np.array(TEXTS, dtype=object))) - expected).max() < 1e-5


def test_settings_say_how_many_tokens_stand_in_a_batch(expected):
    small = encoder(EncodingSettings(batch_tokens=16, precision="recipe"))
    seen = []
    small.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0]["input_ids"].shape)))
    assert np.abs(small.encode(TEXTS) - expected).max() < 1e-5
    assert all(rows * width <= 16 or rows == 1 for rows, width in seen)


@pytest.mark.parametrize("precision", ["auto", "recipe"])
def test_bfloat16_stands_in_for_float32_where_settings_and_hardware_allow_it(expected, precision):
    chosen = encoder(EncodingSettings(precision=precision))
    fast = precision == "auto" and multiplies_in_bfloat16("cpu")
    assert chosen.model.dtype == (torch.bfloat16 if fast else torch.float32)
    cosines = (chosen.encode(TEXTS) * expected).sum(axis=1)
    assert cosines.min() > (0.9995 if fast else 1 - 1e-6)


def test_a_recipes_own_half_precision_is_never_changed():
    assert encoder(EncodingSettings(precision="auto"), dtype="float16").model.dtype == torch.float16


def test_without_settings_the_recipes_arithmetic_is_exact(minilm):
    assert minilm.model.dtype == torch.float32


def test_ids_that_differ_from_the_models_own_are_refused(monkeypatch):
    cut = EncoderTokenizer.__call__
    monkeypatch.setattr(EncoderTokenizer, "__call__", lambda self, texts: cut(self, [text[:20] for text in texts]))
    with pytest.raises(ValueError, match="ids of its tokenizer's files differ from those that the model makes itself"):
        encoder()


def test_task_is_refused_where_the_model_has_none(tmp_path):
    tiny_qwen3(tmp_path)
    with pytest.raises(ValueError, match=r"encoder.task is 'retrieval.passage', (but|and) .* takes no task"):
        open_encoder(EncoderSpec(model=str(tmp_path), dim=32, task="retrieval.passage"))


@pytest.mark.nightly
def test_compiled_model_gives_the_same_vectors(expected):
    compiled = encoder(EncodingSettings(precision="recipe", compile=True))
    assert np.abs(compiled.encode(TEXTS) - expected).max() < 1e-5


@pytest.mark.gpu
def test_gpu_gives_the_same_vectors_whatever_the_batch(expected):
    on_gpu = open_encoder(EncoderSpec(model=MINILM, dim=384), device="cuda")
    for batch_tokens in (30, 32768):
        on_gpu.batch_tokens = batch_tokens
        assert np.abs(on_gpu.encode(TEXTS) - expected).max() < 1e-4


def test_dimension_above_the_models_own_is_refused_with_both():
    with pytest.raises(ValueError, match=r"encoder.dim is 512, but .* gives 384 dimensions; lower encoder.dim"):
        encoder(dim=512)


def test_vector_that_is_not_finite_is_refused_and_its_text_named():
    broken = SentenceTransformersEncoder(EncoderSpec(model=MINILM, dim=384))
    [ids] = broken.model.tokenizer(["zebra"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        broken.model[0].auto_model.embeddings.word_embeddings.weight[ids[0]] = torch.nan
    texts = ["a long text without the animal", "one zebra", "none"]
    with pytest.raises(ValueError, match=r"NaN or infinity for text 'one zebra' \(row 1\); try encoder.dtype: float32"):
        broken.encode(texts)
    vectors = broken.encode_tokens(broken.tokenizer(texts))  # the caller finds it here, and keeps the others
    assert np.isfinite(vectors).all(axis=1).tolist() == [True, False, True]


def test_folder_without_a_model_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"encoder.model .* cannot be loaded.* Give a hub id"):
        encoder(model=str(tmp_path))


def test_folder_that_does_not_exist_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"encoder.model .* cannot be loaded.* Give a hub id"):
        encoder(model=str(tmp_path / "absent"))
