import pytest

from embinv.models.settings import OWN_TO_A_BACKBONE, SIZES, MDLMConfig, ModelSettings
from tests.backbones import tiny_shape

DATA = (11, 6, 5)  # V, D, L


def test_settings_resolve_to_the_sizes_widths_and_a_width_by_hand_wins():
    for size, widths in SIZES.items():
        resolved = ModelSettings(size=size).resolve(*DATA).model_dump()
        assert {name: resolved[name] for name in widths} == widths
    by_hand = ModelSettings(size="base", layers=3).resolve(*DATA)
    assert (by_hand.layers, by_hand.hidden) == (3, 768)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"multiple of 2 x model.heads"):
        ModelSettings(hidden=64, heads=5).resolve(*DATA)


@pytest.mark.parametrize(("given", "resolved"), [(None, 8), (0, 0), (3, 3)])
def test_pseudo_tokens_are_eight_unless_said_otherwise(given, resolved):
    assert ModelSettings(pseudo_tokens=given).resolve(*DATA).pseudo_tokens == resolved


@pytest.mark.parametrize("name", OWN_TO_A_BACKBONE)
def test_what_a_backbone_decides_is_refused_beside_one_with_the_way_out(name):
    value = {"size": "small", "rope": False, "qk_norm": False, "tied_head": False}.get(name, 64)
    with pytest.raises(ValueError, match=rf"model.{name} is decided by model.backbone 'x'; leave it at its default"):
        ModelSettings(backbone="x", **{name: value})


def test_revision_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match=r"model.backbone_revision means nothing without model.backbone"):
        ModelSettings(backbone_revision="main")
    assert ModelSettings(backbone="x", backbone_revision="main").backbone_revision == "main"


def test_architecture_of_an_older_checkpoint_is_read():
    tree = {"vocab_size": 5, "embedding_dim": 4, "seq_len": 8, "hidden": 64, "layers": 2, "heads": 2, "ffn": 256}
    tree |= {"adaln": True, "pseudo_tokens": 8, "rope": True, "qk_norm": True, "tied_head": True, "dropout": 0.0}
    assert MDLMConfig.model_validate(tree).model_dump() == tree


def test_shape_with_a_kind_of_layer_that_is_not_known_is_refused():
    tree = tiny_shape().model_dump() | {"layer_types": ["full_attention", "mamba"]}
    with pytest.raises(ValueError, match="layer_types"):
        type(tiny_shape()).model_validate(tree)
