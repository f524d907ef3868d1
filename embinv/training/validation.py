"""What a model is worth in the middle of training: the NELBO, and generation from a full mask.

Held-out texts only. Accuracy under a partial mask is measured too, under its own name, since it says how
well gaps are filled and not how well a vector is inverted. Each worker takes its share; the sums are added up.

Shapes: B batch, L length, D embedding, V vocabulary, M hidden positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser, final_state
from embinv.decoding.confidence import decode_by_confidence
from embinv.decoding.ends import behind_the_end
from embinv.decoding.parts import in_parts
from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import LOSS_WEIGHTS
from embinv.diffusion.schedule import low_discrepancy_times
from embinv.training.engine import Engine
from embinv.training.step import TokenIds, step_generator, to_tensors
from embinv.training.teacher_forcing import counted

PARTIAL_MASKS = (0.1, 0.5)
BATCH = 128


@dataclass(frozen=True)
class Validation:
    """Figures over held-out texts.

    Attributes:
        measure: what `nats` is: the NELBO of a denoiser, or the negative log-likelihood of a T5 or a corrector.
        nats: of the NELBO a token of L, or of the likelihood a token: of a T5 up to the end, of a denoiser that
            corrects of L; over the tokens that it knows.
        token_accuracy: content tokens right after generation from a full mask, in what is said before its end; or, of
            a corrector, after one correction.
        exact_match: texts right to the last token.
        masked_accuracy: accuracy at hidden content tokens, by the share that was hidden.
        n: texts generated.
        hypothesis_accuracy: of a corrector: content tokens right in the hypotheses that it was given.
        unknown: share of content tokens that a trimmed vocabulary lacks; None if it is whole.
    """

    measure: Literal["nelbo", "nll"]
    nats: float
    token_accuracy: float
    exact_match: float
    masked_accuracy: dict[float, float]
    n: int
    unknown: float | None = None
    hypothesis_accuracy: float | None = None

    def as_row(self) -> dict[str, float]:
        """Flat figures for a log; partial masks are named as such."""
        partial = {f"accuracy_at_{share:.0%}_mask": value for share, value in self.masked_accuracy.items()}
        return {
            self.measure: self.nats,
            "token_accuracy": self.token_accuracy,
            "exact_match": self.exact_match,
            **partial,
            **({} if self.hypothesis_accuracy is None else {"hypothesis_accuracy": self.hypothesis_accuracy}),
            **({} if self.unknown is None else {"unknown_tokens": self.unknown}),
        }


@torch.no_grad()
def validate(denoiser: Denoiser, pairs: Pairs, ids: TokenIds, steps: int, engine: Engine) -> Validation:
    """Measures a denoiser; the draws are the same at each call, so that figures can be compared.

    Args:
        denoiser: usually the EMA model.
        pairs: held-out texts.
        ids: EOS and PAD are not content. `other`, which no training text holds, counts in no NELBO, since its
            probability was never learnt, and is never written.
        steps: passes of a generation.
        engine: this worker's place among the others.
    """
    counts = np.zeros(4)  # texts, their tokens, their content tokens, and those of them that are `other`
    found = np.zeros(3 + 2 * len(PARTIAL_MASKS))  # cross-entropies, right, exact, then (right, hidden) by mask
    noised = _draw(pairs, ids.mask_id)
    mine = np.arange(len(pairs))[engine.rank :: engine.world]
    for start in range(0, len(mine), BATCH):
        rows = mine[start : start + BATCH]
        texts = HeldOutTexts.of(*to_tensors(pairs, rows, engine.device), ids)
        counts += (len(rows), texts.x_0.numel(), float(texts.content.sum()), float(texts.unknown.sum()))
        in_part, *partial_masks = (each.take(rows, engine.device) for each in noised)
        found[0] += _nelbo(denoiser, texts, in_part)
        found[1:3] += generated(decode_by_confidence(denoiser, texts.request(steps)), texts)
        for i, gaps in enumerate(partial_masks):
            found[3 + 2 * i : 5 + 2 * i] += _fill_gaps(denoiser, texts, gaps)
    n, tokens, content, unknown, entropy, right, exact, *partial = engine.total([*counts.tolist(), *found.tolist()])
    hidden_by_share = {share: partial[2 * i : 2 * i + 2] for i, share in enumerate(PARTIAL_MASKS)}
    masked = {share: right / hidden for share, (right, hidden) in hidden_by_share.items() if hidden}  # few hide none
    return Validation(
        "nelbo",
        entropy / (tokens - unknown),
        right / content,
        exact / n,
        masked,
        int(n),
        None if ids.other_id is None else unknown / content,
    )


@torch.no_grad()
def validate_writer(model: Any, pairs: Pairs, ids: TokenIds, steps: int, engine: Engine) -> Validation:
    """Measures a T5 that writes from left to right, whatever `steps` says; see `validate`."""
    counts = np.zeros(5)  # texts, content tokens, those of them that are `other`; tokens scored, their cross-entropies
    found = np.zeros(2)  # right, exact
    mine = np.arange(len(pairs))[engine.rank :: engine.world]
    for start in range(0, len(mine), BATCH):
        rows = mine[start : start + BATCH]
        texts = HeldOutTexts.of(*to_tensors(pairs, rows, engine.device), ids)
        asked = counted(texts.x_0, ids) & ~texts.unknown
        targets = texts.x_0[asked]  # [M]
        entropies = model(texts.x_0, texts.embedding, asked, targets, torch.ones_like(targets, dtype=torch.float32))[1]
        content, unknown = float(texts.content.sum()), float(texts.unknown.sum())
        counts += (len(rows), content, unknown, len(targets), float(entropies.sum()))
        found += generated(decode_greedily(model, texts.request(steps)), texts)
    n, content, unknown, scored, entropy, right, exact = engine.total([*counts.tolist(), *found.tolist()])
    share = None if ids.other_id is None else unknown / content
    return Validation("nll", entropy / scored, right / content, exact / n, {}, int(n), share)


@dataclass(frozen=True)
class HeldOutTexts:
    """Held-out texts x_0 [B, L] and their vectors [B, D]; where they have content, and tokens unknown to the model."""

    x_0: Tensor
    embedding: Tensor
    content: Tensor
    unknown: Tensor
    ids: TokenIds

    @classmethod
    def of(cls, x_0: Tensor, embedding: Tensor, ids: TokenIds) -> "HeldOutTexts":
        """Texts that are content but for EOS and PAD."""
        content = ~torch.isin(x_0, torch.tensor(ids.ends, device=x_0.device))
        return cls(x_0, embedding, content, ~ids.known(x_0), ids)

    def request(self, steps: int) -> DecodingRequest:
        """To write them from their vectors alone."""
        return self.ids.request(self.embedding, self.x_0.shape[1], steps)


@dataclass(frozen=True)
class _Noised:
    """Texts with a part hidden: times [B], z_t [B, L] int64, hidden [B, L] bool."""

    t: Tensor
    z_t: Tensor
    hidden: Tensor

    def take(self, rows: np.ndarray, device: torch.device) -> "_Noised":
        """The given rows, on a device."""
        return _Noised(*(part[rows].to(device) for part in (self.t, self.z_t, self.hidden)))


def _draw(pairs: Pairs, mask_id: int) -> list[_Noised]:
    """All held-out texts at times spread over (0, 1], then at each partial mask; the same for any number of workers."""
    x_0, generator = torch.from_numpy(pairs.token_ids).long(), step_generator(0, 0, 0)
    times = [low_discrepancy_times(len(x_0), generator), *(torch.full((len(x_0),), share) for share in PARTIAL_MASKS)]
    return [_Noised(t, *mask_tokens(x_0, t, mask_id, generator)) for t in times]


def _nelbo(denoiser: Denoiser, texts: HeldOutTexts, noised: _Noised) -> float:
    """Cross-entropies of the hidden tokens, weighted by 1/t, summed."""
    asked, total = noised.hidden & ~texts.unknown, 0.0
    weights = LOSS_WEIGHTS["nelbo"](noised.t).unsqueeze(1).expand(asked.shape)  # [B, L]
    for rows, log_probability in in_parts(denoiser, noised.z_t, texts.embedding, asked, texts.ids.mask_id):
        here = asked[rows]
        said = log_probability.gather(1, texts.x_0[rows][here].unsqueeze(1)).squeeze(1)  # [M]
        total -= float((weights[rows][here] * said).sum())
    return total


def generated(states: Iterator[DecodingState], texts: HeldOutTexts) -> tuple[float, float]:
    """(content tokens right, texts right) of a generation."""
    return right_in(final_state(states).tokens, texts)


def right_in(said: Tensor, texts: HeldOutTexts) -> tuple[float, float]:
    """(content tokens right, texts right) of what is said [B, L]; after the first EOS or PAD there is no content."""
    x_0, content, ends = texts.x_0, texts.content, texts.ids.ends
    going_on = ~torch.isin(said, torch.tensor(ends, device=said.device)) & ~behind_the_end(said, ends)
    right = (said == x_0) & content & going_on
    whole = ((right == content) & (going_on == content)).all(dim=1)  # [B]
    return float(right.sum()), float(whole.sum())


def _fill_gaps(denoiser: Denoiser, texts: HeldOutTexts, noised: _Noised) -> tuple[float, float]:
    """(right, hidden) among hidden content tokens."""
    asked, right = noised.hidden & texts.content, 0.0
    parts = in_parts(denoiser, noised.z_t, texts.embedding, asked, texts.ids.mask_id, texts.ids.other_id)
    for rows, log_probability in parts:
        right += float((log_probability.argmax(dim=-1) == texts.x_0[rows][asked[rows]]).sum())
    return right, float(asked.sum())
