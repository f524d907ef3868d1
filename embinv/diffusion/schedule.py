"""How much is hidden at time t: the linear (log-linear in noise) schedule of MDLM, alpha_t = 1 - t.

A token is masked with probability 1 - alpha_t = t (Sahoo et al. 2024, appendix E.1), so t is the expected share of
the text that is hidden and t = 1 hides all of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def alpha(t: Tensor) -> Tensor:
    """The share of tokens still visible at t."""
    return 1.0 - t


def loss_weight(t: Tensor) -> Tensor:
    """-alpha'_t / (1 - alpha_t) = 1 / t, the weight of the NELBO (MDLM, eq. 10)."""
    return 1.0 / t


MIN_TIME = 1e-3
"""The smallest time drawn, as in MDLM: below it almost nothing is hidden and 1 / t only adds variance."""


def low_discrepancy_times(batch: int, generator: torch.Generator) -> Tensor:
    """Low-discrepancy times: one uniform shift, then `batch` points evenly spread over the interval.

    The sampler of Kingma et al. 2021 ("Variational Diffusion Models", appendix I.1): each time alone is uniform, and
    together they cover the interval, which lowers the variance of the loss. The order is shuffled, so that a row's
    place in the batch says nothing about its time.

    Args:
        batch: B, how many times.
        generator: source of randomness, on the CPU.

    Returns:
        [B] float32, uniform on [MIN_TIME, 1].
    """
    shift = torch.rand((), generator=generator, dtype=torch.float64)
    uniform = (shift + torch.arange(batch, dtype=torch.float64)) / batch  # one point in each of B strata of [0, 1)
    order = torch.randperm(batch, generator=generator)
    return (MIN_TIME + (1.0 - MIN_TIME) * uniform[order]).float()


def uniform_times(batch: int, generator: torch.Generator) -> Tensor:
    """Independent times, [B] float32, uniform on [MIN_TIME, 1]."""
    return (MIN_TIME + (1.0 - MIN_TIME) * torch.rand(batch, generator=generator, dtype=torch.float64)).float()


TIME_SAMPLERS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "low-discrepancy": low_discrepancy_times,
    "uniform": uniform_times,
}
