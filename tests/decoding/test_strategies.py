"""What every decoder promises, whatever its order, its draws and the ends of its texts."""

from typing import get_args

import pytest
import torch

from embinv.decoding import parts
from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.candidates import SAMPLERS
from embinv.decoding.confidence import STILL_HIDDEN, SURENESS
from embinv.decoding.options import (
    GREEDY,
    READS,
    DecodingOptions,
    Order,
    Remasking,
    Reveal,
    Sampler,
    Strategy,
)
from embinv.decoding.remasking import RULES
from embinv.decoding.strategies import STRATEGIES
from tests.fakes import ContextDenoiser, OracleDenoiser

ROWS, LENGTH, DIM, VOCABULARY = 5, 9, 6, 11
MASK, EOS, PAD = VOCABULARY, 0, 1
WAYS = [
    *(("confidence", {"order": order, "reveal": reveal}) for order in SURENESS for reveal in STILL_HIDDEN),
    ("sequential", {}),
    ("euler", {}),
    ("euler", {"temperature": 0.7, "top_p": 0.9}),
    ("euler", {"temperature": 0.0}),
    *(("remasking", {"remasking": rule, "remasking_rate": 0.3}) for rule in RULES),
    ("two_stage", {}),
    *(("candidates", {"candidates": 3, "sampler": sampler}) for sampler in SAMPLERS),
]
ways = pytest.mark.parametrize(("strategy", "options"), WAYS, ids=lambda part: str(part).strip("{}").replace("'", ""))


@pytest.fixture
def texts():
    """Texts of 1 to L - 1 tokens, an end and padding, and one that fills all L places."""
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(2, VOCABULARY, (ROWS, LENGTH), generator=generator)
    for row, length in enumerate((1, 4, 5, LENGTH - 1, LENGTH)):
        x_0[row, length:] = PAD
        x_0[row, length : length + 1] = EOS
    return x_0, torch.randn((ROWS, DIM), generator=generator)


def decode(denoiser, embedding, strategy, options, steps=4, seed=0, ends=(EOS, PAD), other_id=None):
    request = DecodingRequest(
        embedding, LENGTH, MASK, steps, seed, other_id=other_id, end_ids=ends, options=DecodingOptions(**options)
    )
    return STRATEGIES[strategy](denoiser, request)


def test_every_strategy_is_among_the_ways_that_are_tested():
    assert {strategy for strategy, _ in WAYS} == set(STRATEGIES)
    assert {*STRATEGIES, *WRITERS} == set(get_args(Strategy)) and not {*STRATEGIES} & {*WRITERS}
    assert set(READS) == set(get_args(Strategy)) - {"candidates"}
    assert list(SURENESS) == list(get_args(Order)) and list(STILL_HIDDEN) == list(get_args(Reveal))
    assert list(RULES) == list(get_args(Remasking)) and list(SAMPLERS) == list(get_args(Sampler))


@ways
@pytest.mark.parametrize("ends", [None, (EOS, PAD)])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, LENGTH, LENGTH + 3])
def test_oracles_text_is_recovered_exactly_in_at_most_as_many_passes(texts, strategy, options, steps, ends):
    x_0, embedding = texts
    oracle = OracleDenoiser(embedding, x_0, VOCABULARY, sure=1.0)
    shuffled = torch.tensor([2, 0, 4, 3, 1])
    last = final_state(decode(oracle, embedding[shuffled], strategy, options, steps, ends=ends))
    assert torch.equal(last.tokens, x_0[shuffled])
    assert torch.allclose(last.confidence, torch.ones(ROWS, LENGTH))
    assert oracle.calls == last.step <= steps


@ways
@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_result_of_a_vector_does_not_depend_on_its_batch(texts, strategy, options, steps):
    embedding = texts[1]
    together = final_state(decode(ContextDenoiser(VOCABULARY), embedding, strategy, options, steps))
    for row in range(ROWS):
        alone = final_state(decode(ContextDenoiser(VOCABULARY), embedding[row : row + 1], strategy, options, steps))
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.equal(alone.confidence[0], together.confidence[row])


@ways
def test_a_seed_repeats_bit_for_bit_and_another_one_gives_other_samples(texts, strategy, options):
    embedding = texts[1]
    first, second, other = (
        final_state(decode(ContextDenoiser(VOCABULARY), embedding, strategy, options, seed=seed, ends=None))
        for seed in (7, 7, 8)
    )
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.confidence, second.confidence)
    greedy = strategy in GREEDY
    assert torch.equal(first.tokens, other.tokens) == greedy


@ways
@pytest.mark.parametrize("room", [1, 2 * LENGTH * VOCABULARY + 1])
def test_few_logits_at_once_decode_as_all_of_them_do(texts, strategy, options, room, monkeypatch):
    dense = list(decode(ContextDenoiser(VOCABULARY), texts[1], strategy, options))
    monkeypatch.setattr(parts, "LOGITS_AT_ONCE", room)
    for state, expected in zip(decode(ContextDenoiser(VOCABULARY), texts[1], strategy, options), dense, strict=True):
        assert torch.equal(state.tokens, expected.tokens)
        assert torch.equal(state.confidence, expected.confidence)


@ways
def test_only_hidden_tokens_are_asked_for_and_none_behind_an_end(texts, strategy, options):
    denoiser = ContextDenoiser(VOCABULARY)
    last = final_state(decode(denoiser, texts[1], strategy, options))
    for z_t, positions in denoiser.seen:
        assert positions.any(dim=1).all()  # no row without a question
        assert (z_t[positions] == MASK).all()
        ends = (z_t == EOS) | (z_t == PAD)
        behind = (ends.cumsum(dim=1) - ends.long()) > 0
        assert (z_t[behind] == PAD).all()
        assert not positions[behind].any()
    assert not (last.tokens == MASK).any()
    ends = (last.tokens == EOS) | (last.tokens == PAD)
    assert (last.tokens[(ends.cumsum(dim=1) - ends.long()) > 0] == PAD).all()


@ways
def test_id_that_is_barred_is_never_written(texts, strategy, options):
    free = final_state(decode(ContextDenoiser(VOCABULARY), texts[1], strategy, options)).tokens
    barred = int(free[free > PAD].mode().values)
    found = [
        state.tokens for state in decode(ContextDenoiser(VOCABULARY), texts[1], strategy, options, other_id=barred)
    ]
    assert all((tokens != barred).all() for tokens in found)


@ways
def test_states_are_never_changed_after_they_were_yielded_and_count_their_passes(texts, strategy, options):
    seen, copies = [], []
    for state in decode(ContextDenoiser(VOCABULARY), texts[1], strategy, options, steps=6):
        seen.append(state)
        copies.append((state.tokens.clone(), state.confidence.clone()))
    for state, (tokens, confidence) in zip(seen, copies, strict=True):
        assert torch.equal(state.tokens, tokens)
        assert torch.equal(state.confidence, confidence)
        assert ((state.confidence > 0) == (state.tokens != MASK)).all()
    steps = [state.step for state in seen]
    assert steps == sorted(set(steps)) and steps[-1] <= 6


@pytest.mark.parametrize("strategy", ["confidence", "sequential", "euler"])
def test_no_pass_is_made_once_every_text_has_its_end(strategy):
    x_0 = torch.full((2, LENGTH), PAD)
    x_0[:, 0] = EOS
    oracle = OracleDenoiser(torch.eye(2, DIM), x_0, VOCABULARY, sure=1.0)
    states = list(decode(oracle, torch.eye(2, DIM), strategy, {}, steps=LENGTH))
    assert torch.equal(states[-1].tokens, x_0)
    if strategy == "sequential":
        assert oracle.calls == 1
    assert all((state.tokens == MASK).any() for state in states[:-1])
