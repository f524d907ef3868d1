"""Correctors: see a hypothesis and its own vector, and write better ones for `embinv.decoding.refine`.

Shapes: N vectors, M hypotheses, D embedding, L length.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from embinv.decoding.base import final_state
from embinv.decoding.options import Choices, DecodingOptions
from embinv.decoding.refine import Corrector, Refined, refine
from embinv.encoders.base import Encoder
from embinv.inversion import Inversion, text_ids, text_stream
from embinv.inverter import TextInverter

SHARES = (0.15, 0.5)  # of a hypothesis that is hidden: by the first of several proposals, and by the last
PASSES = 4  # of a denoiser for each proposal


class RewritingCorrector:
    """An inverter that hides parts of a hypothesis and writes them anew. Nothing is trained for it.

    It reads the wanted vector alone, not how far the hypothesis is from it: a proposal is no better than the inverter,
    and the choice among many makes the difference. A T5, which writes from left to right, hides the last part.

    Args:
        inverter: writes.
        seed: of what is hidden and drawn; beside it, proposals depend on the vector and the hypothesis alone.
        temperature: of what is written.
    """

    def __init__(self, inverter: TextInverter, seed: int = 0, temperature: float = 1.0) -> None:
        self._inverter, self._seed, self._temperature = inverter, seed, temperature

    def propose(
        self, targets: np.ndarray, texts: list[str], own: np.ndarray, count: int
    ) -> Sequence[Sequence[Inversion]]:
        """See `embinv.decoding.refine.Corrector`; of what is kept of a hypothesis, the confidence is 1."""
        inverter, size = self._inverter, self._inverter.batch_size
        tokens = text_ids(texts, inverter.tokenizer, inverter.vocabulary, inverter.config.pairs.seq_len)
        rows = [(row, place) for row in range(len(texts)) for place in range(count)]
        found: list[Inversion] = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            of, places = [row for row, _ in part], [place for _, place in part]
            # A hypothesis of the same vector that was corrected before gets other draws.
            streams = tuple(text_stream(texts[row]) + place for row, place in part)
            shares = torch.tensor([_share(place, count) for place in places], dtype=torch.float64)
            found += self._rewritten(targets[of], tokens[of], shares, streams)
        return [found[row * count : (row + 1) * count] for row in range(len(texts))]

    def _rewritten(
        self, targets: np.ndarray, tokens: torch.Tensor, shares: torch.Tensor, streams: tuple[int, ...]
    ) -> list[Inversion]:
        inverter = self._inverter
        options = DecodingOptions(temperature=self._temperature)
        request = inverter.request(targets, Choices("euler", PASSES, self._seed, options), streams)
        with torch.inference_mode():
            state = final_state(inverter.rewrite(request, tokens.to(inverter.device), shares))
        return inverter.read_candidates(state)


def _share(place: int, count: int) -> float:
    """How much the proposal `place` of `count` hides."""
    first, last = SHARES
    return first + (last - first) * place / max(1, count - 1)


def refined(
    inverter: TextInverter,
    embeddings: np.ndarray,
    first: Sequence[Inversion | Sequence[Inversion]],
    encoder: Encoder,
    steps: int,
    beam: int,
    corrector: Corrector[Inversion] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
    on_step: Callable[[int, Inversion], None] | None = None,
) -> list[Inversion]:
    """Inversions brought closer to their vectors with the encoder's help; see `embinv.decoding.refine.refine`.

    Args:
        inverter: made the first ones.
        embeddings: [N, D] that were inverted.
        first: of each vector one, or several.
        encoder: that of the vectors.
        steps: corrections at most; 0 only measures the cosine.
        beam: hypotheses that are held, and proposals for each.
        corrector: proposes; None takes a `RewritingCorrector` of the inverter.
        seed: of that corrector.
        on_progress: called with the number of vectors done.
        on_step: called with a vector's row and its closest inversion so far, as it would be returned: once the first
            ones are measured, and after each of its corrections.

    Returns:
        For each vector an inversion with its cosine and encoder calls, and without probabilities, since what those
        were calibrated on was not chosen by the encoder.

    Raises:
        ValueError: see `embinv.decoding.refine.refine`.
    """
    found = refine(
        embeddings,
        [[each] if isinstance(each, Inversion) else each for each in first],
        encoder,
        corrector or RewritingCorrector(inverter, seed),
        steps=steps,
        beam=beam,
        on_progress=on_progress,
        on_step=None if on_step is None else lambda row, best: on_step(row, _measured(best)),
    )
    return [_measured(each) for each in found]


def _measured(found: Refined[Inversion]) -> Inversion:
    return replace(
        found.hypothesis,
        cosine=found.cosine,
        encoder_calls=found.encoder_calls,
        token_probability=None,
        probability=None,
    )
