"""A checkpoint's tensors by name: renaming one breaks every checkpoint that people have, so it is written down."""

from safetensors.torch import load_file

from embinv.models.backbone import BackboneDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import BackboneConfig, ModelSettings
from tests.backbones import tiny_shape
from tests.fakes import hash_spec, tiny_checkpoint, word_tokenizer

TINY = [
    "blocks.0.attention.key.weight",
    "blocks.0.attention.key_norm.weight",
    "blocks.0.attention.output.weight",
    "blocks.0.attention.query.weight",
    "blocks.0.attention.query_norm.weight",
    "blocks.0.attention.value.weight",
    "blocks.0.feed_forward.down.weight",
    "blocks.0.feed_forward.up.weight",
    "blocks.0.modulation.bias",
    "blocks.0.modulation.weight",
    "blocks.1.attention.key.weight",
    "blocks.1.attention.key_norm.weight",
    "blocks.1.attention.output.weight",
    "blocks.1.attention.query.weight",
    "blocks.1.attention.query_norm.weight",
    "blocks.1.attention.value.weight",
    "blocks.1.feed_forward.down.weight",
    "blocks.1.feed_forward.up.weight",
    "blocks.1.modulation.bias",
    "blocks.1.modulation.weight",
    "condition.0.bias",
    "condition.0.weight",
    "condition.2.bias",
    "condition.2.weight",
    "final_norm.modulation.bias",
    "final_norm.modulation.weight",
    "head_bias",
    "pseudo_tokens.bias",
    "pseudo_tokens.weight",
    "token_embedding.weight",
]
UNCONDITIONED = [
    "blocks.0.attention.key.weight",
    "blocks.0.attention.output.weight",
    "blocks.0.attention.query.weight",
    "blocks.0.attention.value.weight",
    "blocks.0.feed_forward.down.weight",
    "blocks.0.feed_forward.up.weight",
    "blocks.0.norm_attention.weight",
    "blocks.0.norm_feed_forward.weight",
    "final_norm.norm.weight",
    "head_bias",
    "head_weight",
    "position_embedding",
    "token_embedding.weight",
]

STARTED = [
    "blocks.0.layer.attn.Wo.weight",
    "blocks.0.layer.attn.Wqkv.weight",
    "blocks.0.layer.mlp.Wi.weight",
    "blocks.0.layer.mlp.Wo.weight",
    "blocks.0.layer.mlp_norm.weight",
    "blocks.0.modulation.bias",
    "blocks.0.modulation.weight",
    "blocks.1.layer.attn.Wo.weight",
    "blocks.1.layer.attn.Wqkv.weight",
    "blocks.1.layer.attn_norm.weight",
    "blocks.1.layer.mlp.Wi.weight",
    "blocks.1.layer.mlp.Wo.weight",
    "blocks.1.layer.mlp_norm.weight",
    "blocks.1.modulation.bias",
    "blocks.1.modulation.weight",
    "condition.0.bias",
    "condition.0.weight",
    "condition.2.bias",
    "condition.2.weight",
    "embedding_norm.weight",
    "final_modulation.bias",
    "final_modulation.weight",
    "final_norm.weight",
    "head_bias",
    "prediction.dense.weight",
    "prediction.norm.weight",
    "pseudo_tokens.bias",
    "pseudo_tokens.weight",
    "token_embedding.weight",
]


def test_saved_tiny_model_has_exactly_these_tensors(tmp_path):
    tiny_checkpoint(tmp_path / "checkpoint", word_tokenizer(tmp_path / "words"), hash_spec())
    assert sorted(load_file(tmp_path / "checkpoint" / "model.safetensors")) == TINY


def test_model_with_every_switch_off_has_exactly_these_tensors():
    switches = {"adaln": False, "pseudo_tokens": 0, "rope": False, "qk_norm": False, "tied_head": False}
    settings = ModelSettings(size="tiny", layers=1, **switches)
    assert sorted(ConditionalMDLM(settings.resolve(10, 4, 8)).state_dict()) == UNCONDITIONED


def test_model_from_a_backbone_has_exactly_these_tensors():
    data = {"vocab_size": 10, "embedding_dim": 4, "seq_len": 64, "adaln": True, "pseudo_tokens": 2, "dropout": 0.0}
    config = BackboneConfig(**data, backbone="tiny", transformer=tiny_shape(num_hidden_layers=2))
    assert sorted(BackboneDenoiser(config).state_dict()) == STARTED
