"""What a defended store is still good for: does it find what the undefended one finds.

Every vector of the store is a query once. What is relevant to it are its ten nearest others by exact cosine under the
undefended vectors; the query itself is left out on both sides, since finding a text by itself says nothing. In nDCG
the nearest has gain 10, the next 9, down to 1, so that their order counts; recall asks only how many of the ten are
among the first ten. It measures agreement with the encoder, not whether the encoder is right.

Shapes: N vectors, D embedding, S of the store, B queries of a block.
"""

from dataclasses import dataclass

import numpy as np

from embinv.defences.base import unit_rows
from embinv.metrics.figures import Figure, mean_figure

DEPTH = 10
AT_ONCE = 2**23  # cosines held at a time, in each of three matrices
_LAST = -2.0  # below every cosine


@dataclass(frozen=True)
class Utility:
    """Figures over N queries.

    Attributes:
        ndcg_at_10: with gains by exact rank.
        recall_at_10: share of the exact ten.
    """

    ndcg_at_10: Figure
    recall_at_10: Figure


def retrieval_utility(vectors: np.ndarray, stored: np.ndarray, queries: np.ndarray) -> Utility:
    """How well a store finds each vector's neighbours.

    Args:
        vectors: [N, D] undefended.
        stored: [N, S] what lies in the store for them.
        queries: [N, S] the same vectors as they are asked for.

    Raises:
        ValueError: there are fewer than 11 vectors, or not as many in each.
    """
    from sklearn.metrics import ndcg_score  # takes a second

    rows = len(vectors)
    if rows <= DEPTH:
        raise ValueError(f"retrieval utility needs at least {DEPTH + 1} vectors, got {rows}; give more held-out texts")
    if not rows == len(stored) == len(queries):
        raise ValueError(
            f"{rows} vectors, {len(stored)} stored and {len(queries)} queries; give one of each for each text"
        )
    exact, stored, queries = unit_rows(vectors), unit_rows(stored), unit_rows(queries)
    block = max(1, AT_ONCE // rows)
    gains, recalls = [], []
    for start in range(0, rows, block):
        own = np.arange(start, min(start + block, rows))
        relevant = nearest(_cosines(exact, exact, own))  # [B, 10]
        scores = _cosines(queries, stored, own)  # [B, N]
        gain = np.zeros_like(scores)
        np.put_along_axis(gain, relevant, np.arange(DEPTH, 0, -1, dtype=np.float32)[None, :], axis=1)
        found = nearest(scores)  # [B, 10]
        recalls += [len(np.intersect1d(one, other)) / DEPTH for one, other in zip(relevant, found, strict=True)]
        gains += [float(ndcg_score(gain[[i]], scores[[i]], k=DEPTH)) for i in range(len(own))]
    return Utility(mean_figure(gains), mean_figure(recalls))


def nearest(scores: np.ndarray) -> np.ndarray:
    """The columns of the ten highest scores of each row [B, N], the highest first, of equals the first: [B, 10]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def _cosines(queries: np.ndarray, stored: np.ndarray, own: np.ndarray) -> np.ndarray:
    """[B, N] of the queries in rows `own`; each one's own row of the store comes last."""
    cosines = queries[own] @ stored.T
    cosines[np.arange(len(own)), own] = _LAST
    return cosines
