"""A hypothesis edited: what is doubted goes, what is kept stays, and what comes is the corrector's."""

import pytest
import torch

from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.editing import edit, edit_at_once
from embinv.decoding.ends import behind_the_end
from tests.fakes import ContextDenoiser

PAD, EOS, V, LENGTH, DIM = 0, 1, 9, 12, 4
OTHER = V - 1


def request(rows, steps=3, streams=None):
    vectors = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(5))
    vectors[:, 0] = torch.arange(rows)  # by which a row can be told
    return DecodingRequest(vectors, LENGTH, V, steps, 0, OTHER, (EOS, PAD), streams=streams)


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
        table.scatter_(2, self.truth[embedding[:, 0].long()].unsqueeze(2), self.sure)
        return table.log()[positions]


def test_at_once_the_likeliest_token_stands_everywhere_after_one_pass():
    truth = texts(3)
    wrong = texts(3, content=6, seed=1)
    denoiser = Knowing(truth)
    state = edit_at_once(denoiser, request(3), wrong)
    assert torch.equal(state.tokens, truth) and state.step == 1 and denoiser.asked == [3 * LENGTH]
    assert torch.allclose(state.confidence[truth != PAD], torch.tensor(0.9))


def test_at_once_it_sees_the_whole_hypothesis_and_pads_behind_the_first_end():
    denoiser, tokens, wanted = ContextDenoiser(V), texts(40), request(40)
    said = edit_at_once(denoiser, wanted, tokens).tokens
    table = denoiser(tokens, wanted.embedding)
    table[..., OTHER] = -torch.inf
    likeliest = table.argmax(dim=-1)
    behind = behind_the_end(likeliest, (EOS, PAD))
    assert behind.any() and torch.equal(said, likeliest.masked_fill(behind, PAD))


def test_only_what_is_doubted_is_asked_for_again():
    truth = texts(3)
    wrong = truth.clone()
    wrong[:, 2] = 3 + (truth[:, 2] == 3).long()
    denoiser = Knowing(truth, sure=1 - 1e-9)
    states = list(edit(denoiser, request(3), wrong))
    hidden = states[0].tokens == V
    assert torch.equal(hidden, wrong != truth) and hidden.sum() == 3
    assert torch.equal(states[-1].tokens, truth)
    assert denoiser.asked[0] == 3 * LENGTH and sum(denoiser.asked[1:]) == 3


@pytest.mark.parametrize(("is_long", "should_be"), [(5, 9), (9, 5)])
def test_an_end_at_the_wrong_place_is_moved(is_long, should_be):
    truth, hypothesis = texts(2, content=should_be), texts(2, content=is_long)
    said = final_state(edit(Knowing(truth, sure=1 - 1e-9), request(2), hypothesis)).tokens
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
    for said in (
        final_state(edit(ContextDenoiser(V), request(4), unknown)).tokens,
        edit_at_once(ContextDenoiser(V), request(4), unknown).tokens,
    ):
        assert not (said == OTHER).any() and not (said == V).any()


def test_a_row_depends_on_its_own_draws_alone():
    tokens, wanted = texts(5), request(5)
    whole = final_state(edit(ContextDenoiser(V), wanted, tokens)).tokens
    for row in range(5):
        alone = DecodingRequest(wanted.embedding[row : row + 1], LENGTH, V, 3, 0, OTHER, (EOS, PAD))
        assert torch.equal(final_state(edit(ContextDenoiser(V), alone, tokens[row : row + 1])).tokens[0], whole[row])
    others = final_state(edit(ContextDenoiser(V), request(5, streams=(1,) * 5), tokens)).tokens
    assert not torch.equal(others, whole)
