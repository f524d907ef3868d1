"""What refinement with the encoder at hand adds to what was decoded from vectors alone, and what it costs.

Shapes: N vectors, D embedding.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embinv.correcting import refined
from embinv.encoders.base import Encoder
from embinv.evaluation.generation import Generation
from embinv.inversion import Inversion
from embinv.inverter import TextInverter
from embinv.metrics.figures import rounded
from embinv.metrics.text import cosine

FIGURES = ("token_f1", "bleu", "exact_match")


def refinement_rows(
    inverter: TextInverter,
    vectors: np.ndarray,
    decoded: Generation,
    encoder: Encoder,
    budgets: Sequence[tuple[int, int]],
    seed: int = 0,
    decoding_ms: float = 0.0,
    on_progress: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """A row for the texts as they were decoded, and one for each budget.

    Args:
        inverter: decoded them, and writes parts of them anew.
        vectors: [N, D] that were inverted.
        decoded: the originals, and what was recovered of each vector.
        encoder: that of the vectors.
        budgets: (steps, beam) of each row.
        seed: of what is drawn.
        decoding_ms: milliseconds that decoding took for one text; a row counts them too.
        on_progress: gets a line now and then.

    Returns:
        steps, beam, n, token F1, BLEU, exact match and cosine with their standard errors; encoder calls and
        milliseconds, the mean of a text; and cosine_falls, the texts that are further from their vector than before.
    """
    before = _cosines(encoder, vectors, decoded.inversions)
    rows = [_row(decoded, 0, 0, before, before, encoder_calls=0.0, milliseconds=decoding_ms)]
    for steps, beam in budgets:
        on_progress(f"refining: {steps} steps, {beam} held")
        began = time.perf_counter()
        found = refined(inverter, vectors, decoded.inversions, encoder, steps, beam, seed=seed)
        spent = 1000 * (time.perf_counter() - began) / len(vectors)
        calls = float(np.mean([each.encoder_calls or 0 for each in found]))
        generation = Generation(decoded.originals, decoded.texts, found)
        now = _cosines(encoder, vectors, found)
        rows.append(_row(generation, steps, beam, now, before, encoder_calls=calls, milliseconds=decoding_ms + spent))
    return rows


def _cosines(encoder: Encoder, vectors: np.ndarray, inversions: Sequence[Inversion]) -> tuple[np.ndarray, np.ndarray]:
    return vectors, encoder.encode([each.text or " " for each in inversions])


def _row(
    generation: Generation,
    steps: int,
    beam: int,
    now: tuple[np.ndarray, np.ndarray],
    before: tuple[np.ndarray, np.ndarray],
    **costs: float,
) -> dict[str, Any]:
    figures = {name: figure for name, figure in generation.figures().items() if name in FIGURES}
    falls = int((_each(*now) < _each(*before) - 1e-5).sum())
    return {
        "steps": steps,
        "beam": beam,
        "n": len(generation.inversions),
        **rounded(figures | {"cosine": cosine(*now)}),
        **{name: round(value, 3) for name, value in costs.items()},
        "cosine_falls": falls,
    }


def _each(vectors: np.ndarray, own: np.ndarray) -> np.ndarray:
    """[N] cosines; a text without a direction is as far as can be."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(own, axis=1)
    return np.divide((vectors * own).sum(axis=1), norms, out=np.full(len(own), -1.0), where=norms > 0)
