"""One training pass: draw times, hide tokens, score the hidden ones (MDLM, algorithm 1). Pure but for the engine.

Shapes: B batch, L length, D embedding, M hidden positions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import LOSS_WEIGHTS, token_weights
from embinv.diffusion.schedule import TIME_SAMPLERS
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings

TIME_BUCKETS = 10  # equal parts of (0, 1], by which the loss is shown


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Randomness of one worker's step, found again without replaying the steps before it."""
    mixed = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def to_tensors(pairs: Pairs, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of a split as token ids [B, L] int64 and embeddings [B, D] float32."""
    token_ids = torch.from_numpy(pairs.token_ids[rows]).long()
    embeddings = torch.from_numpy(pairs.embeddings[rows]).float()
    return token_ids.to(device, non_blocking=True), embeddings.to(device, non_blocking=True)


@dataclass(frozen=True)
class StepLoss:
    """What one batch gave.

    Attributes:
        loss: the objective in nats a token, a scalar with a gradient.
        by_time: [2, TIME_BUCKETS] float32: summed cross-entropies of hidden tokens, and their number, by time.
    """

    loss: Tensor
    by_time: Tensor


def training_loss(
    engine: Engine,
    x_0: Tensor,
    embedding: Tensor,
    mask_id: int,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> StepLoss:
    """The objective of one batch.

    Args:
        engine: runs the model.
        x_0: [B, L] int64.
        embedding: [B, D] float.
        mask_id: id of a hidden token.
        settings: which times are drawn, what they weigh, and how much noise the embedding gets.
        generator: this step's randomness, on the CPU.
    """
    t = TIME_SAMPLERS[settings.times](len(x_0), generator)  # [B]
    z_t, hidden = mask_tokens(x_0, t, mask_id, generator)
    if settings.embedding_noise:
        embedding = add_noise(embedding, settings.embedding_noise, generator)
    weights = token_weights(LOSS_WEIGHTS[settings.loss_weight](t).to(x_0.device), hidden)  # [M]
    loss, entropies = engine.loss(z_t, embedding, hidden, x_0[hidden], weights)
    bucket = (t * TIME_BUCKETS).long().clamp(max=TIME_BUCKETS - 1).to(x_0.device)  # [B]
    place = bucket.unsqueeze(1).expand(x_0.shape)[hidden]  # [M]
    by_time = torch.zeros(2, TIME_BUCKETS, device=x_0.device)
    by_time[0].index_add_(0, place, entropies)
    by_time[1].index_add_(0, place, torch.ones_like(entropies))
    return StepLoss(loss, by_time)


def add_noise(embedding: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise to vectors [B, D], of `share` x each vector's root mean square in every dimension."""
    noise = torch.randn(embedding.shape, generator=generator).to(embedding.device)
    return embedding + share * embedding.square().mean(dim=-1, keepdim=True).sqrt() * noise
