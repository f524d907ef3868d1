"""What refinement with the encoder at hand adds to what was decoded from vectors alone, and what it costs.

Shapes: N vectors, D embedding.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embinv.correcting import refined
from embinv.decoding.refine import Corrector
from embinv.encoders.base import Encoder
from embinv.evaluation.generation import Generation
from embinv.inversion import Inversion
from embinv.inverter import TextInverter
from embinv.metrics.figures import mean_figure, rounded

REWRITING: dict[str, Corrector[Inversion] | None] = {"rewriting": None}
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
    ways: Mapping[str, Corrector[Inversion] | None] = REWRITING,
) -> list[dict[str, Any]]:
    """A row for the texts as they were decoded, and one for each way at each budget.

    Args:
        inverter: decoded them, and writes parts of them anew.
        vectors: [N, D] that were inverted.
        decoded: the originals, and what was recovered of each vector.
        encoder: that of the vectors.
        budgets: (steps, beam) of each row.
        seed: of what is drawn.
        decoding_ms: milliseconds that decoding took for one text; a row counts them too.
        on_progress: gets a line now and then.
        ways: who corrects, by name; None is the inverter, which writes parts anew.

    Returns:
        by (the name, or null), steps, beam, n, token F1, BLEU, exact match and cosine with their
        standard errors; encoder calls and milliseconds, the mean of a text; and cosine_falls, the texts that are
        further from their vector than before.
    """
    before = refined(inverter, vectors, decoded.inversions, encoder, steps=0, beam=1)  # which measures the cosine
    rows = [_row(decoded, before, before, None, 0, 0, encoder_calls=0.0, milliseconds=decoding_ms)]
    for (by, one), (steps, beam) in itertools.product(ways.items(), budgets):
        on_progress(f"refining by {by}: {steps} steps, {beam} held")
        began = time.perf_counter()
        found = refined(inverter, vectors, decoded.inversions, encoder, steps, beam, one, seed)
        spent = 1000 * (time.perf_counter() - began) / len(vectors)
        calls = float(np.mean([each.encoder_calls or 0 for each in found]))
        rows.append(
            _row(decoded, found, before, by, steps, beam, encoder_calls=calls, milliseconds=decoding_ms + spent)
        )
    return rows


def _row(
    decoded: Generation,
    found: list[Inversion],
    before: list[Inversion],
    by: str | None,
    steps: int,
    beam: int,
    **costs: float,
) -> dict[str, Any]:
    generation = Generation(decoded.originals, decoded.texts, found)
    figures = {name: figure for name, figure in generation.figures().items() if name in FIGURES}
    cosines = _cosines(found)
    return {
        "by": by,
        "steps": steps,
        "beam": beam,
        "n": len(found),
        **rounded(figures | {"cosine": mean_figure(cosines.tolist())}),
        **{name: round(value, 3) for name, value in costs.items()},
        "cosine_falls": int((cosines < _cosines(before) - 1e-5).sum()),
    }


def _cosines(refined_ones: Sequence[Inversion]) -> np.ndarray:
    """[N]; a text without a direction is as far as can be."""
    return np.array([-1.0 if each.cosine is None else max(each.cosine, -1.0) for each in refined_ones])
