"""What a T5 learns in a step: each token from the vector and the true tokens before it (teacher forcing).

Shapes: B batch, L length, D embedding, M counted tokens.
"""

import torch
from torch import Tensor

from embinv.decoding.ends import behind_the_end
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings
from embinv.training.step import Draws, StepLoss, TokenIds, add_noise, summed_by_part


def counted(token_ids: Tensor, ids: TokenIds) -> Tensor:
    """The places [B, L] bool that a T5 is to write: up to the end of each text [B, L], EOS included."""
    lone_pad = token_ids == ids.pad_id if ids.pad_id != ids.eos_id else torch.zeros_like(token_ids, dtype=torch.bool)
    return ~behind_the_end(token_ids, ids.ends) & ~lone_pad


def forced_loss(
    engine: Engine, x_0: Tensor, embedding: Tensor, ids: TokenIds, settings: TrainingSettings, draws: Draws
) -> StepLoss:
    """Cross-entropies of counted tokens, summed, over B x L: the mean over equal parts of a batch is that of the whole.

    Args:
        engine: runs the model.
        x_0: [B, L] int64.
        embedding: [B, D] float.
        ids: which end a text.
        settings: how much noise the embedding gets.
        draws: of these B texts; their times and uniforms are not used.
    """
    if draws.noise is not None:
        embedding = add_noise(embedding, settings.embedding_noise, draws.noise)
    return forced_loss_of(engine, x_0, x_0, embedding, ids)


def forced_loss_of(engine: Engine, text: Tensor, given: Tensor, embedding: Tensor, ids: TokenIds) -> StepLoss:
    """The loss of texts [B, L] to write; `given` is what the model is handed: these, or a hypothesis before them."""
    asked = counted(text, ids) & ids.known(text)  # a corrector that has an inverter's vocabulary may lack some
    targets = text[asked]  # [M]
    weights = torch.full(targets.shape, 1.0 / text.numel(), device=text.device)
    loss, entropies = engine.loss(given, embedding, asked, targets, weights)
    length = text.shape[1]
    place = (torch.arange(length, device=text.device) / length).expand(text.shape)[asked]  # [M]
    return StepLoss(loss, summed_by_part(place, entropies))
