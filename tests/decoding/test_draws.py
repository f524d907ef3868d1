import numpy as np
import pytest
import torch

from embinv.decoding.base import DecodingRequest
from embinv.decoding.draws import RowDraws, sample

LENGTH = 4


def request(embedding, seed=0, streams=None):
    return DecodingRequest(embedding, LENGTH, 3, 1, seed, streams=streams)


def test_numbers_of_a_row_depend_on_its_vector_the_seed_and_its_stream_alone():
    embedding = torch.randn((3, 5), generator=torch.Generator().manual_seed(0))
    numbers = RowDraws(request(embedding)).uniform(1000)
    assert numbers.dtype == torch.float64
    alone = RowDraws(request(embedding[1:2].double())).uniform(1000)  # in another dtype, of the same float32 values
    assert torch.equal(alone[0], numbers[1])
    for other in (request(embedding, seed=1), request(embedding, seed=-1), request(embedding, streams=(1, 1, 1))):
        assert not (RowDraws(other).uniform(1000) == numbers).any()
    equal = RowDraws(request(embedding[[0, 0]], streams=(0, 0))).uniform(1000)
    assert torch.equal(equal[0], equal[1])


def test_noise_of_a_row_does_not_depend_on_what_other_rows_drew():
    embedding = torch.randn((3, 5), generator=torch.Generator().manual_seed(0))
    together = RowDraws(request(embedding)).gumbel(torch.tensor([0, 2]), torch.tensor([3, 2]), 7)
    alone = RowDraws(request(embedding[2:])).gumbel(torch.tensor([0]), torch.tensor([2]), 7)
    assert together.shape == (5, 7) and together.dtype == torch.float64
    assert torch.equal(together[3:], alone)


def test_samples_follow_the_tempered_distribution():
    draws, count = RowDraws(request(torch.ones((1, 2)))), 40_000
    log_probability = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).log()
    for temperature in (0.5, 1.0, 2.0):
        noise = draws.gumbel(torch.tensor([0]), torch.tensor([count]), 5)
        drawn = sample(log_probability.expand(count, 5), noise, temperature, 1.0)
        share = torch.bincount(drawn, minlength=5) / count
        wanted = (log_probability.double() / temperature).softmax(dim=0)
        assert (share - wanted).abs().max() < 4 * 0.5 / count**0.5
        assert share[4] == 0


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.05, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.89, 3), (1.0, 4)]
)
def test_top_p_keeps_the_fewest_likeliest_ids_that_reach_it(top_p, kept):
    log_probability = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64).log()
    order = [1, 3, 2, 0]
    for best in range(4):  # the noise favours one id after the other
        noise = torch.zeros((1, 4), dtype=torch.float64)
        noise[0, order[best]] = 100.0
        drawn = int(sample(log_probability, noise, 1.0, top_p))
        assert (drawn == order[best]) == (best < kept)


def test_noise_is_standard_gumbel():
    noise = RowDraws(request(torch.ones((1, 2)))).gumbel(torch.tensor([0]), torch.tensor([1000]), 100)
    assert float(noise.mean()) == pytest.approx(np.euler_gamma, abs=0.02)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, abs=0.05)
