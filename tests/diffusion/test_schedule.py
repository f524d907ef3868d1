import numpy as np
import pytest
import torch

from embinv.diffusion.schedule import MIN_TIME, TIME_SAMPLERS, alpha, loss_weight, low_discrepancy_times, uniform_times
from embinv.training.settings import TrainingSettings

every_sampler = pytest.mark.parametrize("sampler", TIME_SAMPLERS.values(), ids=TIME_SAMPLERS)


def test_weight_is_minus_alphas_slope_over_what_is_hidden():
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    step = 1e-6
    slope = (alpha(t + step) - alpha(t - step)) / (2 * step)
    assert torch.allclose(loss_weight(t), -slope / (1 - alpha(t)), rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7, 256])
def test_one_time_falls_into_each_stratum(batch):
    for seed in range(20):
        t = low_discrepancy_times(batch, torch.Generator().manual_seed(seed)).double()
        stratum = ((t - MIN_TIME) / (1 - MIN_TIME) * batch + 1e-4).floor().clamp_max(batch - 1)
        assert sorted(stratum.tolist()) == list(range(batch))


@every_sampler
def test_times_stay_within_their_interval(sampler):
    t = torch.cat([sampler(64, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert t.min() >= MIN_TIME
    assert t.max() <= 1.0


@every_sampler
def test_the_first_row_alone_has_a_uniform_time(sampler):
    draws = np.sort([sampler(4, torch.Generator().manual_seed(seed))[0].item() for seed in range(4000)])
    uniform = (draws - MIN_TIME) / (1 - MIN_TIME)
    # Kolmogorov-Smirnov: the greatest gap to the uniform distribution, at level 0.001
    places = np.arange(1, len(uniform) + 1) / len(uniform)
    gap = max(np.abs(places - uniform).max(), np.abs(places - 1 / len(uniform) - uniform).max())
    assert gap < 1.95 / len(uniform) ** 0.5


@every_sampler
def test_a_rows_place_says_nothing_about_its_time(sampler):
    mean = torch.stack([sampler(8, torch.Generator().manual_seed(seed)) for seed in range(3000)]).mean(dim=0)
    assert (mean - 0.5).abs().max() < 4 * (1 / 12) ** 0.5 / 3000**0.5 + MIN_TIME


def test_uniform_times_know_nothing_of_each_other():
    # the mean of B independent uniform times has variance 1 / (12 B); points spread evenly have next to none
    batch, draws = 16, 3000
    independent, spread = (
        torch.stack([sampler(batch, torch.Generator().manual_seed(seed)).mean() for seed in range(draws)]).var().item()
        for sampler in (uniform_times, low_discrepancy_times)
    )
    assert independent == pytest.approx(1 / (12 * batch), rel=4 * (2 / draws) ** 0.5)
    assert spread < 0.1 * independent


@every_sampler
def test_a_generator_in_the_same_state_draws_the_same_times(sampler):
    first, second, other = (sampler(9, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_settings_name_the_samplers_that_there_are():
    assert sorted(TrainingSettings.model_json_schema()["properties"]["times"]["enum"]) == sorted(TIME_SAMPLERS)
