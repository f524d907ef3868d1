"""What a corrector knows of a hypothesis: the wanted vector, the hypothesis's own, and how they differ.

Shapes: B batch, D embedding.
"""

import torch
from torch import Tensor

from embinv.models.inverter_model import require_dim, scale_to_unit_rms


def evidence(wanted: Tensor, own: Tensor) -> Tensor:
    """Both vectors [B, D] as one row [B, 2 D], as a corrector takes them in an embedding's place."""
    return torch.cat([wanted, own], dim=-1)


def parted(rows: Tensor, dim: int, unit_rms: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The wanted vectors, the difference to the hypotheses' own, and these, each [B, D].

    Args:
        rows: [B, 2 D] of `evidence`.
        dim: D.
        unit_rms: scale both vectors to unit root mean square, before one is taken from the other.

    Raises:
        ValueError: the rows do not have 2 D numbers.
    """
    require_dim(rows, 2 * dim)
    wanted, own = rows.float().split(dim, dim=-1)
    if unit_rms:
        wanted, own = scale_to_unit_rms(wanted), scale_to_unit_rms(own)
    return wanted, wanted - own, own
