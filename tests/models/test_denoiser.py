"""What both families of denoisers do alike."""

import copy

import pytest
import torch

from embinv.models.backbone import BackboneDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import BackboneConfig, ModelSettings
from tests.backbones import tiny_shape
from tests.fakes import awaken

VOCABULARY, DIM = 11, 6
FAMILIES = ["mdlm", "backbone"]


def model(family, seq_len=6, dropout=0.0):
    torch.manual_seed(0)
    if family == "mdlm":
        settings = ModelSettings(size="tiny", pseudo_tokens=2, dropout=dropout)
        return awaken(ConditionalMDLM(settings.resolve(VOCABULARY, DIM, seq_len)))
    config = BackboneConfig(
        vocab_size=VOCABULARY,
        embedding_dim=DIM,
        seq_len=seq_len,
        adaln=True,
        pseudo_tokens=2,
        dropout=dropout,
        backbone="tiny",
        transformer=tiny_shape(),
    )
    return awaken(BackboneDenoiser(config))


def batch(length=6, rows=4):
    """z_t [B, L], embeddings [B, D], hidden positions, and targets and weights [M] there."""
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    hidden = torch.rand((rows, length), generator=generator) < 0.5
    embedding = torch.randn((rows, DIM), generator=generator)
    weights = torch.rand(int(hidden.sum()), generator=generator)
    return x_0.masked_fill(hidden, VOCABULARY), embedding, hidden, x_0[hidden], weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [16, 32, 64, 128])
def test_lengths_from_16_to_128_are_trained_and_read(family, length):
    made = model(family, seq_len=length)
    z_t, embedding, hidden, targets, weights = batch(length)
    assert made(z_t, embedding).shape == (4, length, VOCABULARY)
    loss, entropies = made.train()(z_t, embedding, hidden, targets, weights)
    loss.backward()
    assert entropies.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_weighted_sum_of_what_the_log_probabilities_say(family):
    made = model(family)
    z_t, embedding, hidden, targets, weights = batch()
    loss, entropies = made(z_t, embedding, hidden, targets, weights)
    expected = -made(z_t, embedding)[hidden].gather(1, targets.unsqueeze(1)).squeeze(1)
    assert torch.allclose(entropies, expected, atol=1e-5)
    assert torch.allclose(loss, (expected * weights).sum(), atol=1e-5)


def step(made, given):
    """Loss, gradients, and the number of elements that were kept for them."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(5)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = made(*given)
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in made.named_parameters()}, sum(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_made_again_give_the_same_gradients_for_less_memory(family):
    given = batch(32, rows=8)
    usual = model(family, seq_len=32, dropout=0.1).train()
    frugal = copy.deepcopy(usual)
    frugal.checkpoint_activations = True
    loss, gradients, kept = step(usual, given)
    again, same, fewer = step(frugal, given)
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[name], same[name]) for name in gradients)
    assert fewer < 0.5 * kept


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("why", ["evaluation", "no gradient"])
def test_activations_are_made_again_in_training_alone(family, why, monkeypatch):
    monkeypatch.setattr("embinv.models.denoiser.checkpoint", lambda *_, **__: pytest.fail("was called"))
    made = model(family).train(why == "no gradient")
    made.checkpoint_activations = True
    with torch.set_grad_enabled(why == "evaluation"):
        made(*batch())


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [each if each == "mdlm" else pytest.param(each, marks=pytest.mark.nightly) for each in FAMILIES]
)
@pytest.mark.parametrize("frugal", [False, True], ids=["kept", "made again"])
def test_compiled_blocks_keep_their_names_and_say_the_same(family, frugal):
    plain = model(family).train()
    compiled = copy.deepcopy(plain)
    compiled.compile_blocks()
    compiled.checkpoint_activations = frugal
    assert list(compiled.state_dict()) == list(plain.state_dict())
    loss, gradients, _ = step(plain, batch())
    again, same, _ = step(compiled, batch())
    assert torch.allclose(loss, again, rtol=1e-5)
    assert all(torch.allclose(gradients[name], same[name], rtol=1e-3, atol=1e-5) for name in gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_block_is_compiled_and_a_copy_is_not(family):
    calls = []

    def backend(graph, _):
        calls.append(graph)
        return graph.forward

    made = model(family)
    made.compile_blocks(backend=backend)
    copied = copy.deepcopy(made)  # as the EMA is made
    z_t, embedding, *_ = batch()
    expected = copied(z_t, embedding)
    assert not calls
    assert torch.allclose(made(z_t, embedding), expected, atol=1e-5)
    assert calls
