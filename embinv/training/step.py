"""One training step's draws, and the objective of a part of it (MDLM, algorithm 1). Pure but for the engine.

Times, masks and noise are drawn for the whole step from (seed, step) alone; each pass of each worker takes its rows of
them. So neither the number of workers nor gradient accumulation changes what is learnt from, and low-discrepancy
times are spread over the whole step.

Shapes: B batch, L length, D embedding, M hidden positions.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.base import DecodingRequest
from embinv.diffusion.corruption import mask_by
from embinv.diffusion.loss import LOSS_WEIGHTS, token_weights
from embinv.diffusion.schedule import TIME_SAMPLERS
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings

PARTS = 10  # equal ones, by which the loss is shown: of times, or of places in a text


@dataclass(frozen=True)
class TokenIds:
    """The ids that are not content; `other_id` is the `other` of a trimmed vocabulary, None if there is no such."""

    mask_id: int
    eos_id: int
    pad_id: int
    other_id: int | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """EOS and PAD."""
        return self.eos_id, self.pad_id

    def known(self, token_ids: Tensor) -> Tensor:
        """[B, L] bool: where a text [B, L] has a token that the vocabulary holds."""
        return torch.ones_like(token_ids, dtype=torch.bool) if self.other_id is None else token_ids != self.other_id

    def request(self, embedding: Tensor, length: int, steps: int) -> DecodingRequest:
        """To write a text of at most `length` tokens from each row of [B, D]."""
        return DecodingRequest(embedding, length, self.mask_id, steps, other_id=self.other_id, end_ids=self.ends)


def step_generator(seed: int, step: int, stream: int) -> torch.Generator:
    """Randomness of one step, found again without replaying the steps before it; each stream is independent."""
    mixed = np.random.SeedSequence((seed, step, stream)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def to_tensors(pairs: Pairs, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of a split as token ids [B, L] int64 and embeddings [B, D] float32."""
    token_ids = torch.from_numpy(pairs.token_ids[rows]).long()
    embeddings = torch.from_numpy(pairs.embeddings[rows]).float()
    return token_ids.to(device, non_blocking=True), embeddings.to(device, non_blocking=True)


@dataclass(frozen=True)
class Draws:
    """What chance decides about a batch, on the CPU.

    L and D are those of its rows, which of a corrector are two texts and two vectors.

    Attributes:
        t: [B] times in (0, 1].
        uniforms: [B, L] in [0, 1): a token is hidden where they are below 1 - alpha_t.
        noise: [B, D] standard normal, or None if the embedding gets none.
    """

    t: Tensor
    uniforms: Tensor
    noise: Tensor | None

    def take(self, rows: slice) -> "Draws":
        """Those of the given rows."""
        return Draws(self.t[rows], self.uniforms[rows], None if self.noise is None else self.noise[rows])


def draw(settings: TrainingSettings, batch: int, length: int, dim: int, generator: torch.Generator) -> Draws:
    """Draws for B texts of L tokens and their vectors of D numbers."""
    return Draws(
        TIME_SAMPLERS[settings.times](batch, generator),
        torch.rand((batch, length), generator=generator),
        torch.randn((batch, dim), generator=generator) if settings.embedding_noise else None,
    )


@dataclass(frozen=True)
class StepLoss:
    """What one batch gave.

    Attributes:
        loss: the objective in nats a token, a scalar with a gradient.
        by_part: [2, PARTS] float32: summed cross-entropies of the tokens asked for, and their number, by time or place.
    """

    loss: Tensor
    by_part: Tensor


def training_loss(
    engine: Engine,
    x_0: Tensor,
    embedding: Tensor,
    ids: TokenIds,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> StepLoss:
    """The objective of a batch with draws of its own; `generator` is on the CPU. See `loss_of_draws`."""
    draws = draw(settings, len(x_0), x_0.shape[1], embedding.shape[1], generator)
    return loss_of_draws(engine, x_0, embedding, ids, settings, draws)


def loss_of_draws(
    engine: Engine, x_0: Tensor, embedding: Tensor, ids: TokenIds, settings: TrainingSettings, draws: Draws
) -> StepLoss:
    """The objective of a batch; the mean over equal parts of a batch is that of the whole, and so is its gradient.

    Args:
        engine: runs the model.
        x_0: [B, L] int64.
        embedding: [B, D] float.
        ids: of them the mask's.
        settings: what the times weigh, and how much noise the embedding gets.
        draws: of these B texts.
    """
    t = draws.t  # [B]
    z_t, hidden = mask_by(draws.uniforms, x_0, t, ids.mask_id)
    if draws.noise is not None:
        embedding = add_noise(embedding, settings.embedding_noise, draws.noise)
    weights = token_weights(LOSS_WEIGHTS[settings.loss_weight](t).to(x_0.device), hidden)  # [M]
    loss, entropies = engine.loss(z_t, embedding, hidden, x_0[hidden], weights)
    part = t.unsqueeze(1).expand(x_0.shape).to(x_0.device)[hidden]  # [M]
    return StepLoss(loss, summed_by_part(part, entropies))


def summed_by_part(at: Tensor, entropies: Tensor) -> Tensor:
    """Sums of cross-entropies [M], and their number, by which of PARTS equal parts of [0, 1] `at` [M] is in."""
    place = (at * PARTS).long().clamp(max=PARTS - 1)
    sums = torch.zeros(2, PARTS, device=entropies.device)
    sums[0].index_add_(0, place, entropies)
    sums[1].index_add_(0, place, torch.ones_like(entropies))
    return sums


def all_or_nan(loss: Tensor) -> Tensor:
    """The loss, or NaN with nothing but NaN for a gradient where it is not finite.

    Workers sum their gradients, so the norm tells all of them, without a message of its own, to leave the step out.
    """
    return loss * torch.where(loss.isfinite(), 1.0, math.nan)


def add_noise(embedding: Tensor, share: float, noise: Tensor) -> Tensor:
    """Adds noise [B, D] to vectors [B, D]: `share` x each vector's root mean square in every dimension."""
    return embedding + share * embedding.square().mean(dim=-1, keepdim=True).sqrt() * noise.to(embedding.device)
