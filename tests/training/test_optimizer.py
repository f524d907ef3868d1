import copy

import pytest
import torch

from embinv.models.backbone import BackboneDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import BackboneConfig, ModelSettings
from embinv.training.optimizer import build_optimizer, set_rate, split_parameters
from embinv.training.settings import TrainingSettings
from tests.backbones import tiny_shape
from tests.fakes import awaken

KINDS = ("muon", "adamw")


def small_model(**switches):
    torch.manual_seed(0)
    settings = ModelSettings(size="tiny", hidden=16, layers=1, ffn=32, **switches)
    return awaken(ConditionalMDLM(settings.resolve(7, 5, 4)))


def settings(optimizer, **more):
    return TrainingSettings(optimizer=optimizer, **more)


def take_steps(model, optimizer, count, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("switches", [{}, {"rope": False, "tied_head": False}, {"adaln": False}], ids=str)
def test_split_covers_every_parameter_once(switches):
    model = small_model(**switches)
    matrices, others = split_parameters(model)
    found = [id(parameter) for parameter in (*matrices, *others)]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())


def test_hidden_matrices_are_the_linear_maps_of_the_blocks_branches_and_nothing_else():
    model = small_model(rope=False, tied_head=False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, others = ({names[id(parameter)] for parameter in part} for part in split_parameters(model))
    parts = (
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.output",
        "feed_forward.up",
        "feed_forward.down",
    )
    assert matrices == {f"blocks.0.{part}.weight" for part in parts}
    assert {"token_embedding.weight", "position_embedding", "head_weight", "head_bias"} <= others


def test_hidden_matrices_of_a_backbone_are_those_of_its_layers_and_nothing_else():
    data = {"vocab_size": 7, "embedding_dim": 5, "seq_len": 4, "adaln": True, "pseudo_tokens": 2, "dropout": 0.0}
    shape = tiny_shape(attention_bias=True, mlp_bias=True, norm_bias=True, tie_word_embeddings=False)
    model = BackboneDenoiser(BackboneConfig(**data, backbone="tiny", transformer=shape))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, others = ({names[id(parameter)] for parameter in part} for part in split_parameters(model))
    parts = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    assert matrices == {f"blocks.{i}.layer.{part}.weight" for i in range(4) for part in parts}
    assert matrices | others == set(names.values())
    assert {"token_embedding.weight", "head_weight", "prediction.dense.weight", "blocks.0.modulation.weight"} <= others


@pytest.mark.parametrize("kind", KINDS)
def test_decay_shrinks_hidden_matrices_only(kind):
    model = small_model()
    before = copy.deepcopy(model)
    optimizer = build_optimizer(model, settings(kind, weight_decay=0.5, learning_rate=0.01, muon_learning_rate=0.01))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    matrices = {id(parameter) for parameter in split_parameters(model)[0]}
    for now, then in zip(model.parameters(), before.parameters(), strict=True):
        expected = then * (1 - 0.01 * 0.5) if id(now) in matrices else then
        assert torch.allclose(now, expected, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_moves(kind):
    model = small_model()
    before = copy.deepcopy(model)
    take_steps(model, build_optimizer(model, settings(kind)), 1, seed=0)
    assert all((a != b).any() for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_muon_brings_the_singular_values_of_an_update_near_each_other():
    model = small_model()
    weight = model.blocks[0].attention.query.weight
    before = weight.detach().clone()
    optimizer = build_optimizer(model, settings("muon", weight_decay=0.0))
    gradient = torch.randn((16, 16), generator=torch.Generator().manual_seed(1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight.grad = gradient.clone()
    optimizer.step()
    raw, update = torch.linalg.svdvals(gradient), torch.linalg.svdvals(weight.detach() - before)
    assert raw.min() < 0.1 * raw.max()
    assert update.min() > 0.4 * update.max()  # five Newton-Schulz iterations bring them near each other


@pytest.mark.parametrize("kind", KINDS)
def test_state_restored_goes_on_bit_for_bit(kind, tmp_path):
    model = small_model()
    optimizer = build_optimizer(model, settings(kind))
    take_steps(model, optimizer, 3, seed=0)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    take_steps(model, optimizer, 3, seed=1)

    restored = small_model()
    again = build_optimizer(restored, settings(kind))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    restored.load_state_dict(state["model"])
    again.load_state_dict(state["optimizer"])
    take_steps(restored, again, 3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), restored.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restored", [False, True])
def test_rate_set_is_the_rate_used_also_after_loading_a_state(kind, restored):
    model = small_model()
    optimizer = build_optimizer(model, settings(kind, weight_decay=0.0))
    take_steps(model, optimizer, 1, seed=0)
    if restored:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy(model)
    set_rate(optimizer, 0.0)
    take_steps(model, optimizer, 1, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    set_rate(optimizer, 1.0)
    take_steps(model, optimizer, 1, seed=2)
    assert all((a != b).any() for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_rate_is_a_share_of_each_groups_own_full_rate():
    optimizer = build_optimizer(small_model(), settings("muon", learning_rate=0.1, muon_learning_rate=0.4))
    for factor in (0.5, 0.25, 1.0):  # never of the rate set before
        set_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4 * factor, 0.1 * factor])


def test_adamw_has_the_betas_of_the_settings():
    for kind in KINDS:
        optimizer = build_optimizer(small_model(), settings(kind, beta1=0.8, beta2=0.95))
        assert optimizer.param_groups[-1]["betas"] == (0.8, 0.95)


def test_zero_grad_forgets_the_gradients_of_both_members():
    model = small_model()
    optimizer = build_optimizer(model, settings("muon"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
