"""One training pass: draw times, hide tokens, score the hidden ones (MDLM, algorithm 1). Pure but for the engine.

Shapes: B batch, L length, D embedding.
"""

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import LOSS_WEIGHTS, masked_cross_entropy
from embinv.diffusion.schedule import sample_times
from embinv.training.engine import Engine


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Randomness of one worker's step, found again without replaying the steps before it."""
    mixed = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def to_tensors(pairs: Pairs, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of a split as token ids [B, L] int64 and embeddings [B, D] float32."""
    token_ids = torch.from_numpy(pairs.token_ids[rows]).long()
    embeddings = torch.from_numpy(pairs.embeddings[rows]).float()
    return token_ids.to(device, non_blocking=True), embeddings.to(device, non_blocking=True)


def training_loss(
    engine: Engine, x_0: Tensor, embedding: Tensor, mask_id: int, weighting: str, generator: torch.Generator
) -> Tensor:
    """The objective of one batch, in nats a token.

    Args:
        engine: runs the model.
        x_0: [B, L] int64.
        embedding: [B, D] float.
        mask_id: id of a hidden token.
        weighting: a key of `LOSS_WEIGHTS`.
        generator: this step's randomness, on the CPU.
    """
    t = sample_times(len(x_0), generator)  # [B]
    z_t, hidden = mask_tokens(x_0, t, mask_id, generator)
    log_probability = engine.forward(z_t, embedding, hidden)  # [M, V]
    return masked_cross_entropy(log_probability, x_0, hidden, LOSS_WEIGHTS[weighting](t).to(x_0.device))
