"""The NELBO against enumeration, on a vocabulary of two tokens and a table in the place of a model.

The table's rows are the hidden states of a head that is the identity, so that what is tested is what training runs.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import CLIP, LOSS_WEIGHTS, token_weights
from embinv.diffusion.schedule import MIN_TIME, TIME_SAMPLERS, alpha, loss_weight
from embinv.models.head import linear_cross_entropy
from embinv.training.settings import TrainingSettings

LENGTH, VOCABULARY, MASK = 3, 2, 2


@pytest.fixture(scope="module")
def table():
    """Log-probabilities [3, 3, 3, L, V] for every z_t over {0, 1, mask}: nothing makes it consistent, as in a model."""
    return torch.randn((3,) * LENGTH + (LENGTH, VOCABULARY), generator=torch.Generator().manual_seed(0)).log_softmax(-1)


def look_up(table, z_t, hidden):
    return table[tuple(z_t.T)][hidden]  # [M, V]


def masked_cross_entropy(log_probability, x_0, hidden, weight):
    """The training loss where the model says log_probability [M, V] at the hidden positions."""
    vocabulary = log_probability.shape[1]
    weights = token_weights(weight, hidden)
    return linear_cross_entropy(log_probability, torch.eye(vocabulary), torch.zeros(vocabulary), x_0[hidden], weights)[
        0
    ]


def nelbo_by_orders(table, x_0):
    """-log p of an any-order autoregressive model, averaged over all orders: what MDLM's NELBO integrates to."""
    orders = list(itertools.permutations(range(LENGTH)))
    total = 0.0
    for order in orders:
        z_t = [MASK] * LENGTH
        for position in order:
            total -= table[tuple(z_t)][position, x_0[position]].item()
            z_t[position] = int(x_0[position])
    return total / len(orders)


def expected_loss(table, x_0, t):
    """The estimator's expectation at time t: every corruption, by its probability."""
    total = 0.0
    for bits in itertools.product([False, True], repeat=LENGTH):
        hidden = torch.tensor([bits])
        z_t = torch.where(hidden, MASK, x_0)
        chance = math.prod(1 - alpha(t).item() if bit else alpha(t).item() for bit in bits)
        total += chance * masked_cross_entropy(look_up(table, z_t, hidden), x_0, hidden, loss_weight(t)).item()
    return total


@pytest.mark.parametrize("x_0", list(itertools.product([0, 1], repeat=LENGTH)))
def test_expected_loss_is_the_exact_nelbo_per_token(table, x_0):
    x_0 = torch.tensor([x_0])
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact: the integrand is a polynomial in t
    times = torch.tensor((nodes + 1) / 2, dtype=torch.float32)
    integral = sum(w / 2 * expected_loss(table, x_0, t.reshape(1)) for t, w in zip(times, weights, strict=True))
    assert integral == pytest.approx(nelbo_by_orders(table, x_0[0]) / LENGTH, rel=1e-5)


@pytest.mark.parametrize("times", sorted(TIME_SAMPLERS))
def test_drawn_loss_agrees_with_the_exact_nelbo_within_sampling_error(table, times):
    x_0 = torch.tensor([[1, 0, 1]])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    at = torch.tensor(MIN_TIME + (1 - MIN_TIME) * (nodes + 1) / 2, dtype=torch.float32)
    exact = sum(w / 2 * expected_loss(table, x_0, t.reshape(1)) for t, w in zip(at, weights, strict=True))
    generator = torch.Generator().manual_seed(11)
    draws = []
    for _ in range(200):
        rows = x_0.repeat(200, 1)
        t = TIME_SAMPLERS[times](200, generator)
        z_t, hidden = mask_tokens(rows, t, MASK, generator)
        draws.append(masked_cross_entropy(look_up(table, z_t, hidden), rows, hidden, loss_weight(t)).item())
    standard_error = np.std(draws, ddof=1) / len(draws) ** 0.5
    assert standard_error < 0.05 * exact  # else the next line says nothing
    assert abs(np.mean(draws) - exact) < 4 * standard_error


def test_each_text_has_its_own_weight_not_the_batchs_mean():
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.randint(0, 5, (4, 6), generator=generator)
    hidden = torch.rand((4, 6), generator=generator) < 0.5
    full = torch.randn((4, 6, 5), generator=generator).log_softmax(-1)
    weight = torch.tensor([1.0, 10.0, 100.0, 0.5])
    by_hand = sum(-weight[b].item() * full[b, i, x_0[b, i]].item() for b in range(4) for i in range(6) if hidden[b, i])
    loss = masked_cross_entropy(full[hidden], x_0, hidden, weight)
    assert loss.item() == pytest.approx(by_hand / 24, rel=1e-6)


def test_fully_hidden_text_at_weight_one_costs_the_plain_cross_entropy():
    generator = torch.Generator().manual_seed(2)
    x_0 = torch.randint(0, 5, (3, 4), generator=generator)
    logits = torch.randn((12, 5), generator=generator)
    loss = masked_cross_entropy(
        logits.log_softmax(-1), x_0, torch.ones((3, 4), dtype=torch.bool), LOSS_WEIGHTS["nelbo"](torch.ones(3))
    )
    assert loss.item() == pytest.approx(F.cross_entropy(logits, x_0.flatten()).item(), rel=1e-6)


def test_nothing_hidden_costs_nothing_and_still_has_a_gradient():
    logits = torch.zeros((0, 5), requires_grad=True)
    x_0 = torch.zeros((2, 4), dtype=torch.int64)
    hidden = torch.zeros((2, 4), dtype=torch.bool)
    loss = masked_cross_entropy(logits.log_softmax(-1), x_0, hidden, torch.ones(2))
    loss.backward()
    assert loss.item() == 0.0


def test_weights_are_one_for_each_hidden_token_in_row_major_order():
    hidden = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    weights = token_weights(torch.tensor([3.0, 0.5, 7.0]), hidden)
    assert weights.tolist() == pytest.approx([3 / 9, 3 / 9, 0.5 / 9])


@pytest.mark.parametrize("name", sorted(LOSS_WEIGHTS))
def test_every_weight_gives_a_constant_denoiser_its_own_entropy_on_average(name):
    # E_t[weight(t) x t] = 1 for all: a denoiser that says log V everywhere costs log V a token of L
    nodes, weights = np.polynomial.legendre.leggauss(8)
    scale = 0.0
    for start, end in ((0.0, 1 / CLIP), (1 / CLIP, 1.0)):  # a polynomial in t on either side of the clip
        t = torch.tensor(start + (end - start) * (nodes + 1) / 2, dtype=torch.float64)
        part = torch.tensor(weights / 2) * LOSS_WEIGHTS[name](t) * (1 - alpha(t))
        scale += (end - start) * part.sum().item()
    assert scale == pytest.approx(1.0, rel=1e-9)


def test_uniform_weight_counts_every_hidden_token_the_same():
    assert LOSS_WEIGHTS["uniform"](torch.tensor([0.01, 0.5, 1.0])).unique().numel() == 1


def test_clipped_weight_is_that_of_the_nelbo_but_for_texts_that_are_nearly_whole():
    t = torch.linspace(MIN_TIME, 1.0, 500, dtype=torch.float64)
    clipped, nelbo = LOSS_WEIGHTS["clipped"](t), LOSS_WEIGHTS["nelbo"](t)
    whole = t < 1 / CLIP
    assert torch.allclose(clipped[~whole] / nelbo[~whole], clipped[-1].expand(int((~whole).sum())))
    assert clipped[whole].unique().numel() == 1
    assert clipped.max() / clipped.min() == pytest.approx(CLIP)


def test_settings_name_the_weights_that_there_are():
    choices = TrainingSettings.model_json_schema()["properties"]["loss_weight"]["enum"]
    assert sorted(choices) == sorted(LOSS_WEIGHTS)
