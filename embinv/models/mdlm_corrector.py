"""A masked diffusion model that corrects: what it denoises is a hypothesis, a part of which is hidden.

The body is `ConditionalMDLM`'s. It is conditioned on three vectors in place of one: the wanted one, the difference to
the hypothesis's own, and that one, each at unit RMS, so that the direction in which to go is seen as clearly where
little is left to go. It is asked at all positions: what it says of a token that is not hidden is whether it is right.

Shapes: B batch, D embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor

from embinv.models.evidence import parted
from embinv.models.inverter_model import scale_to_unit_rms
from embinv.models.mdlm import ConditionalMDLM


class CorrectingMDLM(ConditionalMDLM):
    """x_0-prediction from a hypothesis, partly hidden, [B, L] and `evidence` [B, 2 D]."""

    asked_share: ClassVar = 1.0
    vectors_given: ClassVar = 2
    vectors_read: ClassVar = 3

    def unit_vectors(self, embedding: Tensor) -> Tensor:
        """Wanted, difference and own [B, 3 D], each at unit RMS; a hypothesis whose vector is the wanted one has none.

        Raises:
            ValueError: the rows are not of two vectors of D numbers.
        """
        wanted, difference, own = parted(embedding, self.config.embedding_dim)
        return torch.cat([wanted, scale_to_unit_rms(difference), own], dim=-1)
