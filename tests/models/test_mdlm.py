import itertools

import pytest
import torch

from embinv.models.inverter_model import count_parameters, scale_to_unit_rms
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from tests.fakes import awaken

VOCABULARY, DIM, LENGTH = 11, 6, 5
MASK = VOCABULARY


def model(awake=True, **switches):
    torch.manual_seed(0)
    made = ConditionalMDLM(ModelSettings(size="tiny", **switches).resolve(VOCABULARY, DIM, LENGTH))
    return awaken(made) if awake else made.eval()


def inputs(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=generator)
    hidden = torch.rand((rows, LENGTH), generator=generator) < 0.5
    return x_0.masked_fill(hidden, MASK), torch.randn((rows, DIM), generator=generator), hidden


ALL_SWITCHES = [
    dict(zip(("adaln", "pseudo_tokens", "rope", "qk_norm", "tied_head"), values, strict=True))
    for values in itertools.product([True, False], [0, 3], [True, False], [True, False], [True, False])
]


@pytest.mark.parametrize("switches", ALL_SWITCHES, ids=str)
def test_every_combination_of_switches_gives_a_distribution_without_the_mask(switches):
    z_t, embedding, _ = inputs()
    log_probability = model(**switches)(z_t, embedding)
    assert log_probability.shape == (3, LENGTH, VOCABULARY)  # the mask, id V, has no place in it
    total = log_probability.exp().sum(dim=-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.mark.parametrize("switches", ALL_SWITCHES, ids=str)
def test_blocks_of_a_new_model_are_the_identity(switches):
    new = model(awake=False, **switches)
    x = torch.randn((2, 4, new.config.hidden), generator=torch.Generator().manual_seed(1))
    condition = torch.randn((2, new.config.hidden), generator=torch.Generator().manual_seed(2))
    rotary = (new.rotary_cosine[:4], new.rotary_sine[:4])
    for block in new.blocks:
        assert torch.equal(block(x, condition, rotary), x)


@pytest.mark.parametrize(
    ("adaln", "pseudo_tokens", "read"), [(True, 3, True), (True, 0, True), (False, 3, True), (False, 0, False)]
)
def test_embedding_is_read_through_the_ways_that_are_on_and_no_other(adaln, pseudo_tokens, read):
    awake = model(adaln=adaln, pseudo_tokens=pseudo_tokens)
    z_t, embedding, _ = inputs()
    changed = (awake(z_t, embedding) - awake(z_t, embedding.flip(0) + 1.0)).abs().max().item()
    assert changed > 1e-2 if read else changed == 0.0


def test_new_model_reads_the_embedding_through_no_adaln_yet():
    z_t, embedding, _ = inputs()
    new = model(awake=False, pseudo_tokens=0)
    assert torch.equal(new(z_t, embedding), new(z_t, embedding + 1.0))


@pytest.mark.parametrize("rope", [True, False])
def test_order_of_visible_tokens_matters(rope):
    awake = model(rope=rope)
    z_t, embedding = torch.tensor([[3, 4, 5, 6, MASK]]), inputs(1)[1]
    permuted = torch.tensor([[6, 3, 5, 4, MASK]])
    assert (awake(z_t, embedding)[0, -1] - awake(permuted, embedding)[0, -1]).abs().max() > 1e-2


@pytest.mark.parametrize("pseudo_tokens", [0, 3])
def test_hidden_positions_are_told_apart(pseudo_tokens):
    awake = model(pseudo_tokens=pseudo_tokens)
    z_t, embedding = torch.tensor([[3, MASK, MASK, 4, MASK]]), inputs(1)[1]
    first, second = awake(z_t, embedding)[0, [1, 2]]
    assert (first - second).abs().max() > 1e-2


@pytest.mark.parametrize("switches", [{"rope": False}, {"qk_norm": False}, {"tied_head": False}], ids=str)
def test_each_switch_changes_what_is_computed(switches):
    z_t, embedding, _ = inputs()
    assert not torch.allclose(model()(z_t, embedding), model(**switches)(z_t, embedding), atol=1e-3)


def test_switches_change_which_weights_exist():
    names = {
        key: set(model(**{key: value}).state_dict())
        for key, value in {
            "rope": False,
            "tied_head": False,
            "qk_norm": False,
            "adaln": False,
            "pseudo_tokens": 0,
        }.items()
    }
    usual = set(model().state_dict())
    assert names["rope"] - usual == {"position_embedding"}
    assert names["tied_head"] - usual == {"head_weight"}
    assert {name.split(".")[-2] for name in usual - names["qk_norm"]} == {"query_norm", "key_norm"}
    conditioning = usual - names["adaln"]
    assert {name for name in conditioning if not name.startswith("condition.")} == {
        name for name in usual if ".modulation." in name
    }
    assert {name for name in usual if name.startswith("condition.")} <= conditioning
    assert {name.split(".")[0] for name in usual - names["pseudo_tokens"]} == {"pseudo_tokens"}


def test_tied_head_learns_with_the_token_embedding():
    z_t, embedding, _ = inputs()
    awake = model()
    before = awake(z_t.fill_(MASK), embedding)
    with torch.no_grad():
        awake.token_embedding.weight[0] += 5.0  # token 0 stands nowhere in z_t
    assert not torch.allclose(awake(z_t, embedding), before, atol=1e-3)


@pytest.mark.parametrize("tied_head", [True, False])
def test_asked_positions_equal_the_full_outputs_rows(tied_head):
    awake = model(tied_head=tied_head)
    z_t, embedding, hidden = inputs()
    assert torch.allclose(awake(z_t, embedding, hidden), awake(z_t, embedding)[hidden], atol=1e-6)


def test_no_asked_position_gives_no_row():
    z_t, embedding, hidden = inputs()
    assert model()(z_t, embedding, torch.zeros_like(hidden)).shape == (0, VOCABULARY)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.25, 3.0, 1e6, 1e30])
def test_scale_of_an_embedding_changes_nothing(scale):
    awake = model()
    z_t, embedding, _ = inputs()
    assert torch.allclose(awake(z_t, embedding * scale), awake(z_t, embedding), atol=1e-4)


def test_unit_rms_equals_division_by_the_root_mean_square_and_zero_stays_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expected = torch.tensor([[3.0, 4.0], [0.0, 0.0]]) / 12.5**0.5
    assert torch.allclose(scale_to_unit_rms(vectors), expected)


def test_row_does_not_depend_on_its_batch():
    awake = model()
    z_t, embedding, _ = inputs(8)
    together = awake(z_t, embedding)
    alone = torch.cat([awake(z_t[i : i + 1], embedding[i : i + 1]) for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_shorter_text_than_the_model_was_made_for_is_read():
    z_t, embedding, _ = inputs()
    assert model()(z_t[:, :3], embedding).shape == (3, 3, VOCABULARY)


def test_wrong_embedding_width_is_refused_with_both_widths():
    with pytest.raises(ValueError, match=f"have {DIM + 1} dimensions, the model takes {DIM}"):
        model()(inputs()[0], torch.ones((3, DIM + 1)))


def test_bfloat16_model_still_gives_float32_log_probabilities():
    z_t, embedding, _ = inputs()
    made = model().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert made(z_t, embedding).dtype == torch.float32


def test_gradient_reaches_every_weight_of_an_awakened_model():
    awake = model()
    z_t, embedding, hidden = inputs()
    awake(z_t, embedding, hidden)[:, 0].sum().backward()
    assert [name for name, p in awake.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def sized(size, **switches):
    with torch.device("meta"):
        settings = ModelSettings(size=size, **switches)
        return ConditionalMDLM(settings.resolve(vocab_size=50_000, embedding_dim=1024, seq_len=32))


def test_base_without_gates_and_pseudo_tokens_comes_to_the_references_78_million():
    # PEERS.md: 78M trainable parameters at 8 layers, hidden 768, 12 heads, FFN 3072
    base = sized("base", pseudo_tokens=0)
    gates = sum(2 * block.modulation.weight.numel() // 6 for block in base.blocks)
    assert count_parameters(base)["non_embedding"] - gates == pytest.approx(78e6, rel=0.005)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.75), ("small", 7.3), ("base", 93.8), ("large", 314.7)])
def test_sizes_have_the_parameters_that_their_description_states(size, millions):
    assert count_parameters(sized(size))["non_embedding"] / 1e6 == pytest.approx(millions, abs=0.05)
    assert f"{size} {millions}" in " ".join(ModelSettings.__doc__.split())


def test_parameter_count_equals_the_sum_over_the_parts():
    hidden, ffn, layers, heads, dim, k = 768, 3072, 8, 12, 1024, 8
    block = 4 * hidden**2 + 2 * (hidden // heads) + 2 * hidden * ffn + (hidden + 1) * 6 * hidden
    condition = (dim + 1) * hidden + (hidden + 1) * hidden
    body = layers * block + condition + (dim + 1) * k * hidden + (hidden + 1) * 2 * hidden
    assert count_parameters(sized("base")) == {"total": body + 50_001 * hidden + 50_000, "non_embedding": body}
