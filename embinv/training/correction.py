"""What a corrector learns in a step, and how it is judged: hypotheses of texts that their inverter had not seen.

A row of token ids is a hypothesis and then its text, [2 L]; a row of embeddings the wanted vector and then the
hypothesis's own, [2 D] (`embinv.data.corrections.Corrections.joined`).

A T5 writes the text by teacher forcing (Morris et al., 2023, section 4). A denoiser learns two things at once, and at
every position: of a whole hypothesis, which tokens are wrong and what stands there; and of one with a part hidden, how
to fill the gaps. So half of the hypotheses of a step are whole, and of the others a share t is hidden.

Shapes: B batch, L length, D embedding, M counted tokens.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.autoregressive import Writing, decode_greedily
from embinv.decoding.base import DecodingState, Denoiser, final_state
from embinv.decoding.editing import edit_at_once
from embinv.diffusion.corruption import mask_by
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings
from embinv.training.step import Draws, StepLoss, TokenIds, add_noise, summed_by_part, to_tensors
from embinv.training.teacher_forcing import counted, forced_loss_of
from embinv.training.validation import BATCH, HeldOutTexts, Validation, right_in

WHOLE = 0.5  # share of the hypotheses of which a denoiser sees every token


def denoised_correction_loss(
    engine: Engine, x_0: Tensor, embedding: Tensor, ids: TokenIds, settings: TrainingSettings, draws: Draws
) -> StepLoss:
    """Mean cross-entropy of the text at every position, from its hypothesis with a part hidden.

    Args:
        engine: runs a `CorrectingMDLM`.
        x_0: [B, 2 L] int64.
        embedding: [B, 2 D] float.
        ids: of them the mask's.
        settings: how much noise the wanted vector gets.
        draws: of these rows: [B, 2 L] uniforms, of which the first half says what is hidden and the next one number
            whether anything is; [B, 2 D] noise, of which the first half counts.
    """
    hypothesis, text = x_0.chunk(2, dim=1)
    length = text.shape[1]
    t = torch.where(draws.uniforms[:, length] < WHOLE, torch.zeros_like(draws.t), draws.t)  # [B]
    z_t, _ = mask_by(draws.uniforms[:, :length], hypothesis, t, ids.mask_id)
    asked = ids.known(text)  # an inverter's vocabulary may lack some
    targets = text[asked]  # [M]
    weights = torch.full(targets.shape, 1.0 / text.numel(), device=text.device)
    loss, entropies = engine.loss(z_t, _noised(embedding, settings, draws), asked, targets, weights)
    part = t.unsqueeze(1).expand(text.shape).to(text.device)[asked]  # [M]
    return StepLoss(loss, summed_by_part(part, entropies))


def forced_correction_loss(
    engine: Engine, x_0: Tensor, embedding: Tensor, ids: TokenIds, settings: TrainingSettings, draws: Draws
) -> StepLoss:
    """As `embinv.training.teacher_forcing.forced_loss`, of a `T5Corrector`; see `denoised_correction_loss`."""
    return forced_loss_of(engine, x_0.chunk(2, dim=1)[1], x_0, _noised(embedding, settings, draws), ids)


def _noised(embedding: Tensor, settings: TrainingSettings, draws: Draws) -> Tensor:
    """[B, 2 D]: noise on the wanted vectors alone; the hypothesis's own is known exactly."""
    if draws.noise is None:
        return embedding
    wanted, own = embedding.chunk(2, dim=1)
    return torch.cat([add_noise(wanted, settings.embedding_noise, draws.noise.chunk(2, dim=1)[0]), own], dim=1)


def edited(model: Denoiser, given: Tensor, embedding: Tensor, ids: TokenIds, steps: int) -> Iterator[DecodingState]:
    """A denoiser's correction of the hypotheses in `given` [B, 2 L], by its likeliest tokens."""
    hypothesis = given.chunk(2, dim=1)[0]
    yield edit_at_once(model, ids.request(embedding, hypothesis.shape[1], steps), hypothesis)


def rewritten(model: Any, given: Tensor, embedding: Tensor, ids: TokenIds, steps: int) -> Iterator[DecodingState]:
    """A T5's correction of the hypotheses in `given` [B, 2 L], by its likeliest tokens."""
    hypothesis = given.chunk(2, dim=1)[0]
    return decode_greedily(OfHypotheses(model, hypothesis), ids.request(embedding, hypothesis.shape[1], steps))


def validate_edits(model: Any, pairs: Pairs, ids: TokenIds, steps: int, engine: Engine) -> Validation:
    """Measures a `CorrectingMDLM`; its likelihood is that of each token given the whole hypothesis."""
    return _validate(model, pairs, ids, steps, engine, writes=False)


def validate_rewriting(model: Any, pairs: Pairs, ids: TokenIds, steps: int, engine: Engine) -> Validation:
    """Measures a `T5Corrector`."""
    return _validate(model, pairs, ids, steps, engine, writes=True)


@torch.no_grad()
def _validate(model: Any, pairs: Pairs, ids: TokenIds, steps: int, engine: Engine, writes: bool) -> Validation:
    """See `embinv.training.validation.validate`; one correction of each hypothesis, by the likeliest tokens."""
    counts = np.zeros(5)  # texts, content tokens, those of them that are `other`; tokens scored, their cross-entropies
    found = np.zeros(3)  # right, exact; right in the hypotheses
    mine = np.arange(len(pairs))[engine.rank :: engine.world]
    for start in range(0, len(mine), BATCH):
        rows = mine[start : start + BATCH]
        given, embedding = to_tensors(pairs, rows, engine.device)
        hypothesis, text = given.chunk(2, dim=1)
        texts = HeldOutTexts.of(text, embedding, ids)
        asked = counted(text, ids) & ids.known(text) if writes else ids.known(text)
        targets = text[asked]  # [M]
        even = torch.ones_like(targets, dtype=torch.float32)
        entropies = model(given if writes else hypothesis, embedding, asked, targets, even)[1]
        content, unknown = float(texts.content.sum()), float(texts.unknown.sum())
        counts += (len(rows), content, unknown, len(targets), float(entropies.sum()))
        correct = rewritten if writes else edited
        said = final_state(correct(model, given, embedding, ids, steps)).tokens
        guessed = hypothesis.masked_fill(~ids.known(hypothesis), ids.mask_id)  # two that it lacks need not be one
        found += (*right_in(said, texts), right_in(guessed, texts)[0])
    n, content, unknown, scored, entropy, right, exact, before = engine.total([*counts.tolist(), *found.tolist()])
    share = None if ids.other_id is None else unknown / content
    return Validation("nll", entropy / scored, right / content, exact / n, {}, int(n), share, before / content)


class OfHypotheses:
    """A corrector with the hypotheses [B, L] that it corrects, as a `Writer`."""

    def __init__(self, model: Any, hypotheses: Tensor) -> None:
        self._model, self._hypotheses = model, hypotheses

    @property
    def start_id(self) -> int:
        return self._model.start_id

    def begin(self, embedding: Tensor) -> Writing:
        return self._model.begin(embedding, self._hypotheses)
