import pytest
import torch
from torch.nn import functional as F

from benchmarks.pairs import random_pairs
from benchmarks.reference import (
    HEAD_ROWS,
    HIDDEN_SHARE,
    PlainBlock,
    ReferenceLoop,
    ReferenceModel,
    ReferenceRecipe,
    hide_a_tenth,
    train_reference,
)
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.strategies import STRATEGIES
from embinv.models.settings import ModelSettings
from embinv.training.step import to_tensors

EOS, PAD, VOCABULARY, LENGTH, DIM = 0, 1, 40, 12, 16
CONFIG = ModelSettings(size="tiny").resolve(VOCABULARY, DIM, LENGTH)


def texts(rows):
    pairs = random_pairs(rows, VOCABULARY, LENGTH, DIM, (EOS, PAD))
    return to_tensors(pairs, pairs.ids, torch.device("cpu"))


def generator():
    return torch.Generator().manual_seed(0)


def test_a_tenth_of_the_content_is_hidden_and_nothing_else_changes():
    x_0, _ = texts(3000)
    z_t, hidden = hide_a_tenth(x_0, (EOS, PAD), CONFIG.mask_id, generator())
    content = (x_0 != EOS) & (x_0 != PAD)
    assert float(hidden[content].float().mean()) == pytest.approx(HIDDEN_SHARE, abs=0.01)
    assert torch.equal(z_t == CONFIG.mask_id, hidden)
    assert torch.equal(z_t[~hidden], x_0[~hidden])


def test_eos_and_pad_are_never_hidden_and_so_never_learnt():
    x_0, _ = texts(3000)
    _, hidden = hide_a_tenth(x_0, (EOS, PAD), CONFIG.mask_id, generator())
    assert (x_0 == EOS).any(dim=1).all()
    assert not hidden[(x_0 == EOS) | (x_0 == PAD)].any()


def test_loss_is_ten_times_the_mean_cross_entropy_of_the_hidden_tokens():
    torch.manual_seed(0)
    model = ReferenceModel(CONFIG)
    x_0, embedding = texts(64)
    z_t, hidden = hide_a_tenth(x_0, (EOS, PAD), CONFIG.mask_id, generator())
    by_hand = F.nll_loss(model(z_t, embedding, hidden), x_0[hidden]) / HIDDEN_SHARE
    assert float(model.loss(z_t, embedding, x_0, hidden)) == pytest.approx(float(by_hand), rel=1e-5)


def test_head_reads_every_position_in_chunks_of_rows(monkeypatch):
    model = ReferenceModel(CONFIG)
    x_0, embedding = texts(64)
    z_t, hidden = hide_a_tenth(x_0, (EOS, PAD), CONFIG.mask_id, generator())
    rows, plain = [], model.logits
    monkeypatch.setattr(model, "logits", lambda states: rows.append(len(states)) or plain(states))
    model.loss(z_t, embedding, x_0, hidden)
    assert rows == [HEAD_ROWS, HEAD_ROWS, HEAD_ROWS]  # 64 x 12


def test_gradient_reaches_positions_where_nothing_is_hidden():
    torch.manual_seed(0)
    model = ReferenceModel(CONFIG)
    x_0, embedding = texts(8)
    hidden = torch.zeros_like(x_0, dtype=torch.bool)
    hidden[:, 2] = True
    model.loss(x_0.masked_fill(hidden, CONFIG.mask_id), embedding, x_0, hidden).backward()
    assert (model.position_embedding.weight.grad.abs().sum(dim=1) > 0).all()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_loss_without_hidden_tokens_is_zero_and_finite():
    model = ReferenceModel(CONFIG)
    x_0, embedding = texts(4)
    assert float(model.loss(x_0, embedding, x_0, torch.zeros_like(x_0, dtype=torch.bool))) == 0.0


def test_block_has_no_gate_that_a_zero_condition_could_close():
    torch.manual_seed(0)
    block = PlainBlock(CONFIG.hidden, CONFIG.heads, CONFIG.ffn)
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    x = torch.randn(2, LENGTH, CONFIG.hidden)
    condition = torch.randn(2, CONFIG.hidden)
    assert not torch.allclose(block(x, condition), x, atol=1e-2)
    torch.nn.init.normal_(block.modulation.weight)
    assert not torch.allclose(block(x, condition), block(x, -condition), atol=1e-2)


def test_model_reads_the_vector_and_the_place_of_a_token():
    torch.manual_seed(0)
    model = ReferenceModel(CONFIG)
    _, embedding = texts(2)
    hidden = torch.full((2, LENGTH), CONFIG.mask_id)
    found = model(hidden, embedding)
    assert found.shape == (2, LENGTH, VOCABULARY)
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0, 0], found[0, 1])
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(2, LENGTH))


def test_full_mask_is_decoded_by_our_decoder():
    model = ReferenceModel(CONFIG).eval()
    _, embedding = texts(3)
    request = DecodingRequest(embedding, LENGTH, CONFIG.mask_id, 4)
    with torch.inference_mode():
        tokens = final_state(STRATEGIES["confidence"](model, request)).tokens
    assert tokens.shape == (3, LENGTH)
    assert int(tokens.max()) < VOCABULARY


def test_one_adamw_decays_every_parameter():
    loop = ReferenceLoop(CONFIG, (EOS, PAD), ReferenceRecipe(weight_decay=0.1))
    assert type(loop.optimizer) is torch.optim.AdamW
    [group] = loop.optimizer.param_groups
    assert group["weight_decay"] == 0.1
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in loop.model.parameters()}


def test_average_moves_a_ten_thousandth_of_the_way_each_step():
    loop = ReferenceLoop(CONFIG, (EOS, PAD), ReferenceRecipe(batch_size=8))
    before = {name: value.clone() for name, value in loop.average.named_parameters()}
    loop.step(*texts(8), 0.5, generator())
    moved = 0.0
    for name, value in loop.model.named_parameters():
        average = dict(loop.average.named_parameters())[name]
        torch.testing.assert_close(average, before[name] + 1e-4 * (value.detach() - before[name]))
        moved += float((average - before[name]).abs().sum())
    assert moved > 0
    assert all(parameter.dtype == torch.float32 for parameter in loop.average.parameters())


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.0), (0.01, 0.5), (0.02, 1.0), (0.51, 0.5), (1.0, 0.0)])
def test_rate_warms_up_and_follows_half_a_cosine(share, factor):
    loop = ReferenceLoop(CONFIG, (EOS, PAD), ReferenceRecipe(batch_size=8, learning_rate=0.01, warmup=0.02))
    loop.step(*texts(8), share, generator())
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor, abs=1e-9)


def test_training_fills_the_minutes_and_lowers_the_loss():
    pairs = random_pairs(64, VOCABULARY, LENGTH, DIM, (EOS, PAD))
    loop = ReferenceLoop(CONFIG, (EOS, PAD), ReferenceRecipe(batch_size=64, learning_rate=3e-3))
    x_0, embedding = to_tensors(pairs, pairs.ids, torch.device("cpu"))
    z_t, hidden = hide_a_tenth(x_0, (EOS, PAD), CONFIG.mask_id, generator())

    def loss():
        with torch.no_grad():
            return float(loop.model.loss(z_t, embedding, x_0, hidden))

    before = loss()
    made = list(train_reference(loop, pairs, 2.0 / 60.0))
    assert [step for step, _ in made] == list(range(1, len(made) + 1))
    assert made[-1][1] >= 2.0
    assert all(seconds < 2.0 for _, seconds in made[:-1])
    assert loss() < before
