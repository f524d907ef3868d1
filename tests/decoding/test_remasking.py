import itertools

import pytest
import torch

from embinv.decoding.base import DecodingRequest, DecodingState
from embinv.decoding.ends import hide
from embinv.decoding.options import DecodingOptions
from embinv.decoding.remasking import RULES, Moment, decode_with_remasking, sigma_max
from tests.fakes import ContextDenoiser

VOCABULARY, MASK, EOS, PAD = 6, 6, 0, 1
REMDM = [name for name in RULES if name.startswith("remdm")]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 32])
def test_times_begin_with_nothing_known_and_end_with_everything(rule, steps):
    moments = RULES[rule].moments(steps, 0.3)
    assert len(moments) == steps
    assert moments[0].alpha_t == 0.0
    assert moments[-1].alpha_s == 1.0 and moments[-1].share == 1.0
    for before, after in itertools.pairwise(moments):
        assert before.alpha_s == pytest.approx(after.alpha_t)
        assert before.alpha_t <= before.alpha_s
    assert all(0.0 <= m.share <= 1.0 + 1e-12 and 0.0 <= m.sigma <= sigma_max(m.alpha_t, m.alpha_s) for m in moments)


@pytest.mark.parametrize(("alpha_t", "alpha_s", "sigma"), [(0.0, 0.25, 0.5), (0.5, 0.75, 0.3), (0.9, 0.9, 0.05)])
def test_as_many_tokens_are_known_after_a_moment_as_without_remasking(alpha_t, alpha_s, sigma):
    """ReMDM's equation 6: the marginal at s is alpha_s whatever sigma is."""
    moment = Moment(alpha_t, alpha_s, sigma)
    assert alpha_t * (1 - sigma) + (1 - alpha_t) * moment.share == pytest.approx(alpha_s)


def test_largest_sigma_is_where_all_that_is_hidden_is_revealed():
    assert Moment(0.8, 0.9, sigma_max(0.8, 0.9)).share == pytest.approx(1.0)
    assert sigma_max(0.2, 0.4) == 1.0
    assert sigma_max(0.9, 1.0) == 0.0


@pytest.mark.parametrize("rule", [*REMDM, "probability"])
def test_shares_that_are_known_come_out_as_planned(rule):
    """512 texts of 32 tokens: the mean share known after each pass, against its closed form."""
    length, steps, rate = 32, 8, 0.2
    options = DecodingOptions(remasking=rule, remasking_rate=rate)
    embedding = torch.randn((512, 2), generator=torch.Generator().manual_seed(0))
    fixed = torch.zeros(VOCABULARY).log_softmax(0)
    request = DecodingRequest(embedding, length, MASK, steps, options=options)
    states = list(decode_with_remasking(lambda z_t, e, positions: fixed.expand(int(positions.sum()), -1), request))
    moments, known = RULES[rule].moments(steps, rate), 0.0
    for state, moment in zip(states, moments, strict=True):
        if rule == "probability":  # all are equally sure: each is hidden with probability `rate`
            lost = known * rate if moment.alpha_s < 1.0 else 0.0
            known = known - lost + (1.0 - known) * moment.share
        elif rule == "remdm-confidence":  # sigma_max is shared out: that many tokens of a text, one at most
            lost = sigma_max(moment.alpha_t, moment.alpha_s) / length if known else 0.0
            known = known - lost + (1.0 - known) * moment.share
            assert moment.alpha_s - 4 / length < known <= moment.alpha_s
        else:
            known = moment.alpha_s
        assert float((state.tokens != MASK).double().mean()) == pytest.approx(known, abs=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_hidden_again_was_seen_by_the_pass_that_hides_it(rule):
    denoiser = ContextDenoiser(VOCABULARY)
    options = DecodingOptions(remasking=rule, remasking_rate=0.5)
    request = DecodingRequest(
        torch.randn((3, 2), generator=torch.Generator().manual_seed(1)), 8, MASK, 6, options=options
    )
    before, taken_back = torch.full((3, 8), MASK), 0
    for state in decode_with_remasking(denoiser, request):
        z_t, _ = denoiser.seen[-1]
        rows = [row for row in range(3) if any(torch.equal(z_t[i], before[row]) for i in range(len(z_t)))]
        assert len(rows) >= len(z_t)  # every row that was asked about was seen as the last state left it
        taken_back += int(((before != MASK) & (state.tokens == MASK)).sum())
        before = state.tokens
    assert (before != MASK).all()
    assert taken_back > 0


def test_threshold_hides_what_was_written_with_less_confidence_and_nothing_else():
    known = torch.tensor([[True, True, False]])
    confidence = torch.tensor([[0.04, 0.06, 0.0]], dtype=torch.float64)
    chance = RULES["threshold"].chances(known, confidence, Moment(0.5, 0.6, 0.0), 0.05)
    assert (known & (chance > 0.5)).tolist() == [[True, False, False]]


def test_doubt_shares_out_the_rate():
    known = torch.tensor([[True, True, True, False]])
    confidence = torch.tensor([[0.9, 0.7, 0.6, 0.0]], dtype=torch.float64)
    chance = RULES["probability"].chances(known, confidence, Moment(0.5, 0.6, 0.0), 0.2)
    assert chance[0].tolist() == pytest.approx([0.6 * 0.1 / 0.8, 0.6 * 0.3 / 0.8, 0.6 * 0.4 / 0.8, 0.0])
    sure = RULES["probability"].chances(known, known.double(), Moment(0.5, 0.6, 0.0), 0.2)
    assert not sure[known].any()


def test_an_end_that_is_hidden_again_gives_back_what_stood_behind_it():
    tokens = torch.tensor([[3, 4, EOS, PAD, PAD], [3, EOS, PAD, PAD, PAD], [3, 4, 5, 3, EOS]])
    request = DecodingRequest(torch.zeros((3, 2)), 5, MASK, 1, end_ids=(EOS, PAD))
    again = torch.tensor([[0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    hidden = hide(request, DecodingState(tokens, torch.ones(3, 5), 2), again)
    assert hidden.tokens.tolist() == [
        [3, 4, MASK, MASK, MASK],
        [MASK, EOS, PAD, PAD, PAD],  # what stands behind an end is given, and not hidden by itself
        [3, 4, 5, 3, MASK],
    ]
    assert torch.equal(hidden.confidence == 0, hidden.tokens == MASK)
    assert hidden.step == 2
