"""FLOPs and weights of encoders, in closed form and off a folder, against PyTorch's own counter on small models."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, Gemma3TextConfig, Gemma3TextModel, Qwen3Config, Qwen3Model

from embinv.encoders.spec import EncoderSpec
from embinv.planning.encoder_size import KNOWN, encoder_size, size_of_folder, transformer
from tests.fakes import MINILM

TOKENS = 24
TINY = {"vocab_size": 100, "num_hidden_layers": 2, "attn_implementation": "eager"}
ARCHITECTURES = {
    "bert": (
        BertModel,
        BertConfig(**TINY, hidden_size=32, intermediate_size=64, num_attention_heads=4),
        transformer(2, 32, 64, 4, 100, "a test"),
    ),
    "qwen3": (
        Qwen3Model,
        Qwen3Config(
            **TINY,
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
        ),
        transformer(2, 32, 48, 4, 100, "a test", key_heads=2, head_width=16, gated=True),
    ),
    "gemma": (
        Gemma3TextModel,
        Gemma3TextConfig(
            **TINY,
            hidden_size=48,
            intermediate_size=48,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=16,
        ),
        transformer(2, 48, 48, 3, 100, "a test", key_heads=1, head_width=16, gated=True),
    ),
}


def counted(kind, config):
    """FLOPs of a text as PyTorch dispatches them, the pooler that nobody reads left out, as are rotary angles."""
    torch.manual_seed(0)
    model = kind(config).eval()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(input_ids=torch.zeros((1, TOKENS), dtype=torch.int64))
    angles = sum(
        flops
        for name, by_kind in counter.get_flop_counts().items()
        if name.endswith("rotary_emb")
        for flops in by_kind.values()
    )
    return counter.get_total_flops() - angles


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_closed_form_counts_what_pytorch_counts(name):
    kind, config, size = ARCHITECTURES[name]
    assert size.flops(TOKENS) == counted(kind, config)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folder_gives_the_closed_form_and_every_weight(name, tmp_path):
    kind, config, size = ARCHITECTURES[name]
    config.save_pretrained(tmp_path)
    found = size_of_folder(tmp_path)
    assert (found.matrices, found.attention, found.layers) == (size.matrices, size.attention, size.layers)
    assert found.vocabulary == 100
    assert found.parameters == sum(weight.numel() for weight in kind(config).parameters())


def test_dense_modules_behind_the_pooling_are_read_once_a_text(tmp_path):
    _, config, size = ARCHITECTURES["bert"]
    config.save_pretrained(tmp_path)
    for place, (inputs, outputs) in enumerate([(32, 128), (128, 32)], start=2):
        (tmp_path / f"{place}_Dense").mkdir()
        settings = {"in_features": inputs, "out_features": outputs}
        (tmp_path / f"{place}_Dense" / "config.json").write_text(json.dumps(settings))
    found = size_of_folder(tmp_path)
    assert found.per_text == 2 * 32 * 128
    assert found.flops(TOKENS) == size.flops(TOKENS) + 2 * found.per_text


@pytest.mark.parametrize(
    ("model", "millions"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", 596),
        ("Qwen/Qwen3-Embedding-8B", 7567),
        ("google/embeddinggemma-300m", 308),
        ("jinaai/jina-embeddings-v3-hf", 559),
    ],
)
def test_known_encoders_have_as_many_weights_as_their_cards_say(model, millions):
    size = encoder_size(EncoderSpec(model=model, dim=32))
    assert size.parameters / 1e6 == pytest.approx(millions, rel=0.005)


def test_minilm_of_the_table_is_the_one_at_hand():
    table, folder = KNOWN["sentence-transformers/all-minilm-l6-v2"], encoder_size(EncoderSpec(model=MINILM, dim=384))
    assert (table.matrices, table.attention, table.vocabulary) == (folder.matrices, folder.attention, folder.vocabulary)
    assert table.parameters == pytest.approx(folder.parameters, rel=0.01)


def test_a_hash_is_no_arithmetic_and_a_server_is_not_guessed():
    assert encoder_size(EncoderSpec(kind="hash", model="hash", dim=8)).flops(100) == 0
    with pytest.raises(ValueError, match=r"encoder.kind openai: .*--from PAIRS or --measured"):
        encoder_size(EncoderSpec(kind="openai", model="m", dim=8, base_url="http://127.0.0.1:1/v1"))


def test_unknown_encoder_is_told_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"encoder.model nobody/knows: .*--set encoder.model=FOLDER"):
        encoder_size(EncoderSpec(model="nobody/knows", dim=8))
    (tmp_path / "config.json").write_text('{"model_type": "nothing-of-the-kind"}')
    with pytest.raises(ValueError, match=r"its config cannot be read \(.*nothing-of-the-kind"):
        size_of_folder(tmp_path)
