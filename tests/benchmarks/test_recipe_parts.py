"""benchmarks/recipe_parts.py: AdaLN without gates and self-conditioning do what their papers say."""

import pytest
import torch

from benchmarks.recipe_parts import SelfConditionedDenoiser, SelfConditionedMDLM, UngatedMDLM
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.confidence import decode_by_confidence
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from tests.fakes import awaken, unit_vectors

DIM, LENGTH = 16, 8


def architecture(**switches):
    return ModelSettings(size="tiny", pseudo_tokens=2, **switches).resolve(11, DIM, LENGTH)


def inputs(hidden_share=0.5):
    torch.manual_seed(3)
    x_0 = torch.randint(0, 11, (4, LENGTH))
    hidden = torch.rand(x_0.shape) < hidden_share
    return torch.where(hidden, torch.full_like(x_0, 11), x_0), torch.from_numpy(unit_vectors(4, DIM)), hidden, x_0


def test_without_gates_a_new_block_is_not_the_identity_and_reads_the_condition_once_it_has_learnt():
    torch.manual_seed(0)
    model = UngatedMDLM(architecture()).eval()
    z_t, embedding, *_ = inputs()
    x = torch.randn(2, LENGTH, 64)
    condition = torch.randn(2, 64)
    block = model.blocks[0]
    assert not torch.allclose(block(x, condition, None), x)
    assert torch.equal(block(x, condition, None), block(x, -condition, None))
    awaken(model)
    assert not torch.allclose(block(x, condition, None), block(x, -condition, None))
    assert not torch.allclose(model(z_t, embedding), model(z_t, embedding.flip(0)))


def test_self_conditioning_starts_as_the_product_s_model_and_then_reads_what_it_predicted():
    torch.manual_seed(0)
    plain = ConditionalMDLM(architecture()).eval()
    model = SelfConditionedMDLM(architecture()).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    z_t, embedding, hidden, _ = inputs()
    guess = model.expected_embedding(plain(z_t, embedding, hidden), hidden)
    assert torch.equal(model.hidden_states(z_t, embedding, guess), plain.hidden_states(z_t, embedding))
    awaken(model)
    assert not torch.allclose(model.hidden_states(z_t, embedding, guess), model.hidden_states(z_t, embedding))
    assert torch.equal(model.hidden_states(z_t, embedding), model.hidden_states(z_t, embedding))  # nothing is kept


def test_the_prediction_fed_back_is_the_mean_token_embedding_at_hidden_positions_only():
    model = awaken(SelfConditionedMDLM(architecture()))
    z_t, embedding, hidden, _ = inputs()
    log_probability = model(z_t, embedding, hidden)
    fed = model.expected_embedding(log_probability, hidden)
    assert fed[~hidden].abs().max() == 0
    by_hand = sum(log_probability[0, v].exp() * model.token_embedding.weight[v] for v in range(11))
    assert torch.allclose(fed[hidden][0], by_hand, atol=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_first_pass_of_self_conditioning_costs_no_weight_its_gradient(mixed):
    model = awaken(SelfConditionedMDLM(architecture())).train()
    z_t, embedding, hidden, x_0 = inputs()
    weights = torch.ones(int(hidden.sum()))
    fed_back = 0
    for seed in range(8):
        model.zero_grad()
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, _ = model(z_t, embedding, hidden, x_0[hidden], weights)
        loss.backward()
        fed_back += model.feedback.weight.grad is not None
        without = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith("feedback")]
        assert without == []
    assert 0 < fed_back < 8  # half of the steps


def test_decoding_with_memory_feeds_each_pass_what_the_one_before_predicted():
    model = awaken(SelfConditionedMDLM(architecture()))
    _, embedding, *_ = inputs()
    request = DecodingRequest(embedding, LENGTH, 11, 3)
    with torch.no_grad():
        states = list(decode_by_confidence(SelfConditionedDenoiser(model), request))
        z_t, previous = request.fully_hidden().tokens, None
        for state in states:
            hidden = z_t == 11
            if previous is not None:
                previous = torch.where(hidden.unsqueeze(-1), previous, 0.0)
            states_now = model.hidden_states(z_t, embedding, previous)[hidden]
            log_probability = model.logits(states_now).log_softmax(-1)
            assert torch.equal(state.tokens[hidden & (state.tokens != 11)], best(log_probability, hidden, state))
            previous, z_t = model.expected_embedding(log_probability, hidden), state.tokens
        assert not torch.equal(final_state(decode_by_confidence(model, request)).tokens, states[-1].tokens)


def best(log_probability, hidden, state):
    """The most probable ids where a pass revealed a token."""
    filled = torch.full(hidden.shape, -1)
    filled[hidden] = log_probability.argmax(-1)
    return filled[hidden & (state.tokens != 11)]
