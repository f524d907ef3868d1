import numpy as np
import pytest
import torch

from embinv.diffusion.schedule import MIN_TIME, alpha, loss_weight, sample_times


def test_weight_is_minus_alphas_slope_over_what_is_hidden():
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    step = 1e-6
    slope = (alpha(t + step) - alpha(t - step)) / (2 * step)
    assert torch.allclose(loss_weight(t), -slope / (1 - alpha(t)), rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7, 256])
def test_one_time_falls_into_each_stratum(batch):
    for seed in range(20):
        t = sample_times(batch, torch.Generator().manual_seed(seed)).double()
        stratum = ((t - MIN_TIME) / (1 - MIN_TIME) * batch + 1e-4).floor().clamp_max(batch - 1)
        assert sorted(stratum.tolist()) == list(range(batch))


def test_times_stay_within_their_interval():
    t = torch.cat([sample_times(64, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert t.min() >= MIN_TIME
    assert t.max() <= 1.0


def test_the_first_row_alone_has_a_uniform_time():
    draws = np.sort([sample_times(4, torch.Generator().manual_seed(seed))[0].item() for seed in range(4000)])
    uniform = (draws - MIN_TIME) / (1 - MIN_TIME)
    # Kolmogorov-Smirnov: the greatest gap to the uniform distribution, at level 0.001
    places = np.arange(1, len(uniform) + 1) / len(uniform)
    gap = max(np.abs(places - uniform).max(), np.abs(places - 1 / len(uniform) - uniform).max())
    assert gap < 1.95 / len(uniform) ** 0.5


def test_a_rows_place_says_nothing_about_its_time():
    mean = torch.stack([sample_times(8, torch.Generator().manual_seed(seed)) for seed in range(3000)]).mean(dim=0)
    assert (mean - 0.5).abs().max() < 4 * (1 / 12) ** 0.5 / 3000**0.5 + MIN_TIME
