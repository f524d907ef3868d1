"""A hypothesis edited: what is doubted goes, what is kept stays, and what comes is the corrector's."""

import pytest
import torch

from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.editing import edit
from embinv.decoding.options import DecodingOptions
from tests.fakes import ContextDenoiser

PAD, EOS, V, LENGTH, DIM = 0, 1, 9, 12, 4
OTHER = V - 1


def request(rows, temperature=1.0, steps=3, seed=0, streams=None):
    vectors = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(5))
    options = DecodingOptions(temperature=temperature)
    return DecodingRequest(vectors, LENGTH, V, steps, seed, OTHER, (EOS, PAD), options, streams)


def texts(rows, content=8, seed=0):
    tokens = torch.randint(2, OTHER, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    tokens[:, content], tokens[:, content + 1 :] = EOS, PAD
    return tokens


class Knowing:
    """Is sure of one text, and says so whatever it is shown; counts what it is asked."""

    def __init__(self, truth, sure=0.9):
        self.truth, self.sure, self.asked = truth, sure, []

    def __call__(self, z_t, embedding, positions=None):
        self.asked.append(int(positions.sum()))
        table = torch.full((*z_t.shape, V), (1 - self.sure) / (V - 1))
        table.scatter_(2, self.truth[: len(z_t)].unsqueeze(2), self.sure)
        return table.log()[positions]


def test_the_likeliest_tokens_are_put_where_others_stand_and_nothing_else_is_touched():
    truth = texts(3)
    wrong = truth.clone()
    wrong[:, 2], wrong[1, 5] = 3 + (truth[:, 2] == 3), 4 + (truth[1, 5] == 4)
    denoiser = Knowing(truth)
    states = list(edit(denoiser, request(3, temperature=0.0), wrong))
    hidden = states[0].tokens == V
    assert torch.equal(hidden, wrong != truth) and hidden.sum() == 4
    assert torch.equal(states[-1].tokens, truth)
    assert denoiser.asked[0] == 3 * LENGTH and sum(denoiser.asked[1:]) == 4  # all once, then the gaps alone
    kept = ~hidden & (truth != PAD)
    assert torch.allclose(states[-1].confidence[kept], torch.tensor(0.9))


def test_a_text_that_is_right_is_left_alone():
    truth = texts(2)
    states = list(edit(Knowing(truth), request(2, temperature=0.0), truth))
    assert len(states) == 1 and torch.equal(states[0].tokens, truth)


@pytest.mark.parametrize(("is_long", "should_be"), [(5, 9), (9, 5)])
def test_an_end_at_the_wrong_place_is_moved(is_long, should_be):
    truth = texts(2, content=should_be)
    hypothesis = torch.cat([truth[:, :is_long], texts(2, content=is_long)[:, is_long:]], dim=1)
    hypothesis[:, min(is_long, should_be) : is_long] = 5
    said = final_state(edit(Knowing(truth), request(2, temperature=0.0), hypothesis)).tokens
    assert torch.equal(said, truth)


def test_a_token_goes_with_the_probability_that_it_is_wrong():
    truth = texts(400, content=LENGTH - 1)
    first = next(iter(edit(Knowing(truth, sure=0.7), request(400), truth))).tokens
    body = first[:, : LENGTH - 1] == V
    assert body.float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / body.numel()) ** 0.5)


def test_what_the_vocabulary_lacks_is_written_anew():
    truth = texts(4)
    unknown = truth.clone()
    unknown[:, 3] = OTHER
    said = final_state(edit(ContextDenoiser(V), request(4, temperature=0.0), unknown)).tokens
    assert not (said == OTHER).any() and not (said == V).any()


def test_a_row_depends_on_its_own_draws_alone():
    tokens, wanted = texts(5), request(5)
    whole = final_state(edit(ContextDenoiser(V), wanted, tokens)).tokens
    for row in range(5):
        alone = DecodingRequest(wanted.embedding[row : row + 1], LENGTH, V, 3, 0, OTHER, (EOS, PAD), DecodingOptions())
        assert torch.equal(final_state(edit(ContextDenoiser(V), alone, tokens[row : row + 1])).tokens[0], whole[row])
    others = final_state(edit(ContextDenoiser(V), request(5, streams=(1,) * 5), tokens)).tokens
    assert not torch.equal(others, whole)
