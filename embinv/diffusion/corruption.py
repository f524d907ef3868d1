"""The forward process q(z_t | x_0): every token, EOS and PAD included, is hidden independently (MDLM, eq. 3)."""

import torch
from torch import Tensor

from embinv.diffusion.schedule import alpha


def mask_tokens(x_0: Tensor, t: Tensor, mask_id: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws z_t; see `mask_by` for what it gives.

    Args:
        x_0: [B, L] int64 token ids.
        t: [B] times in (0, 1].
        mask_id: id that stands for a hidden token.
        generator: source of randomness, on the CPU.
    """
    return mask_by(torch.rand(x_0.shape, generator=generator), x_0, t, mask_id)


def mask_by(uniforms: Tensor, x_0: Tensor, t: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """z_t of draws that are there already, so that a part of a batch can be hidden as the whole batch would be.

    Args:
        uniforms: [B, L] independent draws from [0, 1), on the CPU.
        x_0: [B, L] int64 token ids.
        t: [B] times in (0, 1].
        mask_id: id that stands for a hidden token.

    Returns:
        z_t [B, L] int64, and the hidden positions [B, L] bool.
    """
    hidden_probability = 1.0 - alpha(t)  # [B]
    hidden = (uniforms < hidden_probability.cpu().unsqueeze(1)).to(x_0.device)
    return torch.where(hidden, torch.full_like(x_0, mask_id), x_0), hidden
