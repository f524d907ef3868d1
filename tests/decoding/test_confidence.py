import itertools
import math

import pytest
import torch

from embinv.decoding import parts
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.confidence import decode_by_confidence
from tests.fakes import ContextDenoiser, OracleDenoiser

ROWS, LENGTH, DIM, VOCABULARY = 4, 7, 5, 13
MASK = VOCABULARY


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator), torch.randn(
        (ROWS, DIM), generator=generator
    )


def request(embedding, steps, length=LENGTH, other_id=None):
    return DecodingRequest(embedding, length, MASK, steps, other_id=other_id)


def states(denoiser, embedding, steps, other_id=None):
    return list(decode_by_confidence(denoiser, request(embedding, steps, other_id=other_id)))


@pytest.mark.parametrize("length", [1, 7, 32, 49])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 49, 60])
def test_after_pass_s_of_k_exactly_the_ceiling_of_ls_over_k_are_known(length, steps):
    passes = min(steps, length)
    decoder = decode_by_confidence(ContextDenoiser(VOCABULARY), request(torch.ones((2, DIM)), steps, length))
    known = [(state.step, (state.tokens != MASK).sum(dim=1).tolist()) for state in decoder]
    assert known == [(s, [math.ceil(length * s / passes)] * 2) for s in range(1, passes + 1)]


@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_denoiser_is_asked_once_a_pass_and_for_every_hidden_token(steps):
    denoiser = ContextDenoiser(VOCABULARY)
    states(denoiser, torch.ones((2, DIM)), steps)
    assert len(denoiser.seen) == steps
    for z_t, positions in denoiser.seen:
        assert torch.equal(positions, z_t == MASK)


@pytest.mark.parametrize("steps", [2, 4, LENGTH])
def test_once_kept_a_token_and_its_confidence_never_change(texts, steps):
    passes = states(ContextDenoiser(VOCABULARY), texts[1], steps)
    for before, after in itertools.pairwise(passes):
        kept = before.tokens != MASK
        assert torch.equal(after.tokens[kept], before.tokens[kept])
        assert torch.equal(after.confidence[kept], before.confidence[kept])


@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_confidence_is_the_probability_at_the_pass_in_which_the_token_was_chosen(texts, steps):
    denoiser = ContextDenoiser(VOCABULARY)
    z_t = torch.full((ROWS, LENGTH), MASK)
    for state in states(denoiser, texts[1], steps):
        chosen = (z_t == MASK) & (state.tokens != MASK)
        probability = denoiser(z_t, texts[1]).exp()  # [B, L, V]
        expected = probability.gather(2, state.tokens.clamp_max(VOCABULARY - 1).unsqueeze(2)).squeeze(2)
        assert torch.allclose(state.confidence[chosen], expected[chosen], atol=1e-6)
        assert (state.confidence[state.tokens == MASK] == 0).all()
        z_t = state.tokens


@pytest.mark.parametrize("steps", [2, 3, LENGTH])
def test_each_pass_keeps_the_surest_hidden_tokens_by_brute_force(texts, steps):
    denoiser = ContextDenoiser(VOCABULARY)
    z_t = torch.full((ROWS, LENGTH), MASK)
    for state in states(denoiser, texts[1], steps):
        best, choice = denoiser(z_t, texts[1]).max(dim=-1)  # [B, L]
        for row in range(ROWS):
            hidden = [i for i in range(LENGTH) if z_t[row, i] == MASK]
            wanted = math.ceil(LENGTH * state.step / steps) - (LENGTH - len(hidden))
            surest = sorted(hidden, key=lambda i: -best[row, i].item())[:wanted]
            expected = z_t[row].clone()
            expected[surest] = choice[row, surest]
            assert torch.equal(state.tokens[row], expected)
        z_t = state.tokens


def test_surest_position_is_kept_first_and_the_earlier_wins_a_tie(texts):
    x_0, embedding = texts
    sure = torch.tensor([0.5, 0.9, 0.6, 0.9, 0.99, 0.6, 0.7])
    oracle = OracleDenoiser(embedding, x_0, VOCABULARY, sure)
    order, before = [], torch.zeros(LENGTH, dtype=torch.bool)
    for state in states(oracle, embedding, LENGTH):
        known = state.tokens[0] != MASK
        order += (known & ~before).nonzero().flatten().tolist()
        before = known
    assert order == [4, 1, 3, 6, 2, 5, 0]


def test_decoding_is_deterministic_whatever_the_seed(texts):
    embedding = texts[1]
    results = []
    for seed in (0, 1):
        one = DecodingRequest(embedding, LENGTH, MASK, 3, seed)
        results.append(final_state(decode_by_confidence(ContextDenoiser(VOCABULARY), one)).tokens)
    assert torch.equal(*results)


@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_result_of_a_row_does_not_depend_on_its_batch(texts, steps):
    together = states(ContextDenoiser(VOCABULARY), texts[1], steps)[-1]
    for row in range(ROWS):
        alone = states(ContextDenoiser(VOCABULARY), texts[1][row : row + 1], steps)[-1]
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.equal(alone.confidence[0], together.confidence[row])


def test_states_are_never_changed_after_they_were_yielded(texts):
    seen, copies = [], []
    for state in decode_by_confidence(ContextDenoiser(VOCABULARY), request(texts[1], 4)):
        seen.append(state.tokens)
        copies.append(state.tokens.clone())
    assert all(torch.equal(one, two) for one, two in zip(seen, copies, strict=True))


def test_decoding_starts_with_everything_hidden_at_confidence_zero(texts):
    start = request(texts[1], 1).fully_hidden()
    assert (start.tokens == MASK).all()
    assert start.tokens.shape == start.confidence.shape == (ROWS, LENGTH)
    assert not start.confidence.any()


@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_id_that_is_barred_is_never_written_and_all_else_is_as_if_it_had_no_probability(texts, steps):
    free = states(ContextDenoiser(VOCABULARY), texts[1], steps)[-1].tokens
    barred = int(free.flatten().mode().values)
    assert (free == barred).any()
    inner = ContextDenoiser(VOCABULARY)

    def without(z_t, embedding, positions):
        return inner(z_t, embedding, positions).index_fill(1, torch.tensor([barred]), -torch.inf)

    found = states(ContextDenoiser(VOCABULARY), texts[1], steps, other_id=barred)
    assert not (found[-1].tokens == barred).any()
    for state, expected in zip(found, states(without, texts[1], steps), strict=True):
        assert torch.equal(state.tokens, expected.tokens)
        assert torch.equal(state.confidence, expected.confidence)


@pytest.mark.parametrize("room", [1, LENGTH * VOCABULARY, 2 * LENGTH * VOCABULARY + 1, 3 * LENGTH * VOCABULARY])
@pytest.mark.parametrize("steps", [1, 3, LENGTH])
def test_few_logits_at_once_decode_as_all_of_them_do(texts, steps, room, monkeypatch):
    dense = states(ContextDenoiser(VOCABULARY), texts[1], steps)
    monkeypatch.setattr(parts, "LOGITS_AT_ONCE", room)
    denoiser = ContextDenoiser(VOCABULARY)
    bounded = states(denoiser, texts[1], steps)
    for state, expected in zip(bounded, dense, strict=True):
        assert torch.equal(state.tokens, expected.tokens)
        assert torch.equal(state.confidence, expected.confidence)
    sizes = [(len(z_t), int(positions.sum()) * VOCABULARY) for z_t, positions in denoiser.seen]
    assert all(rows == 1 or logits <= room for rows, logits in sizes)  # one text at least
    assert sum(rows for rows, _ in sizes) == ROWS * steps
    if room > LENGTH * VOCABULARY:
        assert len(sizes) < ROWS * steps  # texts go together where there is room
    assert sizes[0][0] == max(1, room // (LENGTH * VOCABULARY))


@pytest.mark.parametrize("room", [1, LENGTH, 2 * LENGTH + 1, ROWS * LENGTH])
def test_few_tokens_at_once_decode_as_all_of_them_do(texts, room, monkeypatch):
    whole = states(ContextDenoiser(VOCABULARY), texts[1], 3)
    monkeypatch.setattr(parts, "CACHED_TOKENS", room)
    denoiser = ContextDenoiser(VOCABULARY)
    for state, expected in zip(states(denoiser, texts[1], 3), whole, strict=True):
        assert torch.equal(state.tokens, expected.tokens)
        assert torch.equal(state.confidence, expected.confidence)
    most = max(1, room // LENGTH)
    sizes = [len(z_t) for z_t, _ in denoiser.seen]
    assert sizes == [*([most] * (ROWS // most)), *([ROWS % most] if ROWS % most else [])] * 3


def test_usual_room_is_256_megabytes():
    assert parts.LOGITS_AT_ONCE * 4 == 256 * 2**20


@pytest.mark.parametrize("steps", [1, 2, 4, LENGTH])
@pytest.mark.parametrize("seed", range(5))
def test_padding_comes_with_what_is_kept_and_is_not_counted_by_brute_force(texts, steps, seed):
    """A denoiser that says PAD often; in each pass, what the rule says, row by row."""
    eos, pad = 0, 1
    inner = ContextDenoiser(VOCABULARY, seed)

    def padding_often(z_t, embedding, positions):
        return (inner(z_t, embedding, positions) + 2.0 * torch.eye(VOCABULARY)[pad]).log_softmax(-1)

    wanted = DecodingRequest(texts[1], LENGTH, MASK, steps, end_ids=(eos, pad))
    found = list(decode_by_confidence(padding_often, wanted))
    state, z_t = iter(found), torch.full((ROWS, LENGTH), MASK)
    for number in range(1, steps + 1):
        expected = z_t.clone()
        for row in range(ROWS):
            hidden = [i for i in range(LENGTH) if z_t[row, i] == MASK]
            count = len(hidden) - (LENGTH - math.ceil(LENGTH * number / steps))
            if count <= 0:
                continue
            said = padding_often(z_t[row : row + 1], texts[1][row : row + 1], None)[0]
            best, choice = said.max(dim=-1)
            counted = [i for i in hidden if choice[i] != pad] or hidden  # padding counts where there is nothing else
            words = sorted(counted, key=lambda i: -best[i].item())[:count]
            weakest = min(best[i] for i in words)
            with_them = [i for i in hidden if i not in counted and (best[i] >= weakest or count == len(hidden))]
            expected[row, words + with_them] = choice[words + with_them]
            ends = [i for i in range(LENGTH) if expected[row, i] in (eos, pad)]
            if ends:
                expected[row, ends[0] + 1 :] = pad
        if torch.equal(expected, z_t):
            continue
        z_t = next(state).tokens
        assert torch.equal(z_t, expected)
    assert next(state, None) is None
    assert not (z_t == MASK).any()
