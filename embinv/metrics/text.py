"""Metrics over texts and their vectors: BLEU as vec2text reports it, and cosine."""

from collections.abc import Sequence

import numpy as np

from embinv.metrics.figures import Figure, mean_figure


def sentence_bleu(originals: Sequence[str], recovered: Sequence[str]) -> Figure:
    """Mean sentence BLEU in [0, 100] (sacreBLEU: 13a tokens, exponential smoothing, effective order)."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(y, [x]).score for x, y in zip(originals, recovered, strict=True)]
    return mean_figure(scores)


def cosine(left: np.ndarray, right: np.ndarray) -> Figure:
    """Mean cosine between rows of two matrices [N, D].

    Raises:
        ValueError: a row is zero, for which no cosine exists.
    """
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    if not norms.all():
        raise ValueError(f"row {int(np.argmin(norms != 0))} is a zero vector; its cosine does not exist")
    return mean_figure(((left * right).sum(axis=1) / norms).tolist())
