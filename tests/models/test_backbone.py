import copy
import itertools

import pytest
import torch

from embinv.models.backbone import BackboneDenoiser
from embinv.models.inverter_model import count_parameters
from embinv.models.settings import BackboneConfig
from tests.backbones import tiny_shape
from tests.fakes import awaken

VOCABULARY, DIM, LENGTH = 11, 6, 5
MASK = VOCABULARY


def config(seq_len=LENGTH, adaln=True, pseudo_tokens=0, dropout=0.0, **changes):
    return BackboneConfig(
        vocab_size=VOCABULARY,
        embedding_dim=DIM,
        seq_len=seq_len,
        adaln=adaln,
        pseudo_tokens=pseudo_tokens,
        dropout=dropout,
        backbone="tiny",
        transformer=tiny_shape(**changes),
    )


def model(awake=True, **switches):
    torch.manual_seed(0)
    made = BackboneDenoiser(config(**switches))
    if made.head_weight is not None:
        torch.nn.init.normal_(made.head_weight)
    return awaken(made) if awake else made.eval()


def inputs(rows=3, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    hidden = torch.rand((rows, length), generator=generator) < 0.5
    return x_0.masked_fill(hidden, MASK), torch.randn((rows, DIM), generator=generator), hidden


SWITCHES = [
    {"adaln": adaln, "pseudo_tokens": pseudo_tokens, "tie_word_embeddings": tied}
    for adaln, pseudo_tokens, tied in itertools.product([True, False], [0, 3], [True, False])
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_combination_of_switches_gives_a_distribution_without_the_mask(switches):
    z_t, embedding, _ = inputs()
    log_probability = model(**switches)(z_t, embedding)
    assert log_probability.shape == (3, LENGTH, VOCABULARY)
    total = log_probability.exp().sum(dim=-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.mark.parametrize(
    ("adaln", "pseudo_tokens", "read"), [(True, 3, True), (True, 0, True), (False, 3, True), (False, 0, False)]
)
def test_embedding_is_read_through_the_ways_that_are_on_and_no_other(adaln, pseudo_tokens, read):
    awake = model(adaln=adaln, pseudo_tokens=pseudo_tokens)
    z_t, embedding, _ = inputs()
    changed = (awake(z_t, embedding) - awake(z_t, embedding.flip(0) + 1.0)).abs().max().item()
    assert changed > 1e-2 if read else changed == 0.0


def test_new_model_reads_no_embedding_through_adaln_yet():
    z_t, embedding, _ = inputs()
    new = model(awake=False)
    assert torch.equal(new(z_t, embedding), new(z_t, embedding + 1.0))


def test_gate_of_minus_one_shuts_its_branch_and_leaves_the_other():
    block = model().blocks[1]
    with torch.no_grad():
        block.modulation.weight.zero_()
        block.modulation.bias.zero_()
        block.modulation.bias[2 * 32 : 3 * 32] = -1.0  # the gate of attention
    x, condition = torch.randn(2, 4, 32), torch.randn(2, 32)
    rotary = (torch.ones(1, 4, 16), torch.zeros(1, 4, 16))
    expected = x + block.layer.mlp(block.layer.mlp_norm(x))
    assert torch.allclose(block(x, condition, rotary, None), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_order_of_visible_tokens_matters_to_each_kind_of_layer(kind):
    awake = model(layer_types=[kind] * 4)
    embedding = inputs(1)[1]
    first, second = torch.tensor([[3, 4, 5, 6, MASK]]), torch.tensor([[6, 3, 5, 4, MASK]])
    assert (awake(first, embedding)[0, -1] - awake(second, embedding)[0, -1]).abs().max() > 1e-2


def test_local_layer_sees_its_window_and_no_further():
    length, window = 40, 8
    awake = model(seq_len=length, num_hidden_layers=1, layer_types=["sliding_attention"])
    z_t, embedding, _ = inputs(1, length)
    before = awake(z_t, embedding)[0]
    z_t[0, 20] = (z_t[0, 20] + 1) % VOCABULARY
    changed = (awake(z_t, embedding)[0] - before).abs().amax(dim=-1) > 1e-5
    assert changed.nonzero().flatten().tolist() == list(range(20 - window, 20 + window + 1))


def test_tied_head_learns_with_the_token_embedding():
    z_t, embedding, _ = inputs()
    awake = model()
    before = awake(z_t.fill_(MASK), embedding)
    with torch.no_grad():
        awake.token_embedding.weight[0] += 5.0  # token 0 stands nowhere in z_t
    assert not torch.allclose(awake(z_t, embedding), before, atol=1e-3)


def test_row_does_not_depend_on_its_batch_and_a_shorter_text_is_read():
    awake = model()
    z_t, embedding, _ = inputs(8)
    together = awake(z_t, embedding)
    alone = torch.cat([awake(z_t[i : i + 1], embedding[i : i + 1]) for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert awake(z_t[:, :3], embedding).shape == (8, 3, VOCABULARY)


def test_wrong_embedding_width_is_refused_with_both_widths():
    with pytest.raises(ValueError, match=f"have {DIM + 1} dimensions, the model takes {DIM}"):
        model()(inputs()[0], torch.ones((3, DIM + 1)))


def test_bfloat16_model_still_gives_float32_log_probabilities_near_the_float32_ones():
    z_t, embedding, _ = inputs()
    exact = model()(z_t, embedding)
    made = model().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(z_t, embedding)
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.1 * exact.std()


def test_gradient_reaches_every_weight_of_an_awakened_model():
    awake = model(pseudo_tokens=2, tie_word_embeddings=False)
    z_t, embedding, hidden = inputs()
    awake(z_t, embedding, hidden)[:, 0].sum().backward()
    assert [name for name, p in awake.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_weights_of_another_model_of_its_shape_are_all_that_it_needs():
    first, second = model(pseudo_tokens=2), model(awake=False, pseudo_tokens=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    z_t, embedding, _ = inputs()
    assert torch.equal(first(z_t, embedding), second(z_t, embedding))


def test_config_written_as_json_and_read_back_is_equal():
    made = config()
    assert BackboneConfig.model_validate_json(made.model_dump_json()) == made
    assert (made.hidden, made.layers, made.mask_id) == (32, 4, VOCABULARY)


def test_parameter_count_equals_the_sum_over_the_parts():
    hidden, ffn, layers, dim = 32, 48, 4, DIM
    attention, feed_forward, modulation = 4 * hidden**2, 3 * hidden * ffn, (hidden + 1) * 6 * hidden
    norms = (2 * layers - 1 + 3) * hidden  # no attention norm in the first layer; embedding, final, prediction
    condition = (dim + 1) * hidden + (hidden + 1) * hidden
    body = layers * (attention + feed_forward + modulation) + norms + condition + (hidden + 1) * 2 * hidden + hidden**2
    total = body + (VOCABULARY + 1) * hidden + VOCABULARY
    assert count_parameters(model()) == {"total": total, "non_embedding": body}
