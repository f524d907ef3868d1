import pytest
import torch

from embinv.decoding.base import DecodingRequest, DecodingState, final_state
from embinv.decoding.candidates import decode_candidates, likeliest, mean_log_probability, sample_candidates
from embinv.decoding.euler import decode_by_euler
from embinv.decoding.options import DecodingOptions
from tests.fakes import ContextDenoiser

LENGTH, VOCABULARY, MASK, EOS, PAD = 6, 9, 9, 0, 1


def request(candidates, rows=3):
    embedding = torch.randn((rows, 4), generator=torch.Generator().manual_seed(0))
    options = DecodingOptions(candidates=candidates)
    return DecodingRequest(embedding, LENGTH, MASK, 3, end_ids=(EOS, PAD), options=options)


def test_score_is_the_mean_log_probability_up_to_the_end():
    tokens = torch.tensor([[3, 4, EOS, PAD, PAD, PAD], [3, 4, 5, 6, 7, 8], [3, MASK, MASK, MASK, MASK, MASK]])
    confidence = torch.tensor([[0.5, 0.25, 0.125, 1, 1, 1], [0.1] * 6, [0.2, 0, 0, 0, 0, 0]])
    found = mean_log_probability(request(1), DecodingState(tokens, confidence, 1)).exp()
    assert found.tolist() == pytest.approx([0.25, 0.1, 0.2])


def test_candidates_of_a_vector_differ_and_the_likeliest_of_them_is_chosen():
    wanted = request(5)
    every = final_state(sample_candidates(ContextDenoiser(VOCABULARY), wanted))
    assert every.tokens.shape == (15, LENGTH)
    assert all(len({tuple(row) for row in rows.tolist()}) > 1 for rows in every.tokens.view(3, 5, LENGTH))
    scores = mean_log_probability(wanted, every).view(3, 5)
    chosen = final_state(decode_candidates(ContextDenoiser(VOCABULARY), wanted))
    for row in range(3):
        assert torch.equal(chosen.tokens[row], every.tokens[5 * row + int(scores[row].argmax())])
    assert torch.equal(likeliest(wanted, every).tokens, chosen.tokens)


def test_first_candidates_stay_what_they_are_when_more_are_made():
    few, many = (
        final_state(sample_candidates(ContextDenoiser(VOCABULARY), request(count))).tokens.view(3, count, LENGTH)
        for count in (2, 5)
    )
    assert torch.equal(few, many[:, :2])


def test_one_candidate_is_the_samplers_own_sample():
    alone = final_state(decode_by_euler(ContextDenoiser(VOCABULARY), request(1)))
    assert torch.equal(final_state(decode_candidates(ContextDenoiser(VOCABULARY), request(1))).tokens, alone.tokens)
