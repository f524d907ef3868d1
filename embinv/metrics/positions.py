"""Token accuracy where tokens stand and by how long their text is.

Right and wrong are those of `token_accuracy`: a token counts at its own place, and a missing one is wrong.
"""

from dataclasses import dataclass

import numpy as np

from embinv.metrics.figures import Figure, mean_figure
from embinv.metrics.tokens import Texts, token_accuracy

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class LengthBucket:
    """Token accuracy of the texts of certain lengths.

    Attributes:
        shortest: content tokens of the bucket's shortest original.
        longest: content tokens of its longest; both bounds are inside.
        n: texts in it.
        accuracy: their token accuracy; None where the bucket holds one text, which has no standard error.
    """

    shortest: int
    longest: int
    n: int
    accuracy: Figure | None


def accuracy_by_position(originals: Texts, recovered: Texts, positions: int | None = None) -> list[Figure | None]:
    """At each position, the share of originals that reach it whose token there was recovered there.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.
        positions: how many, from the first; None goes to the end of the longest original.

    Returns:
        One figure for each position, whose n are the originals that reach it; None where no original does, and where
        only one does, since it has no standard error.

    Raises:
        ValueError: fewer than two texts, different counts, an original without tokens, or no position.
    """
    lengths = _lengths(originals)
    positions = max(lengths) if positions is None else positions
    if positions < 1:
        raise ValueError(f"positions is {positions}; ask for at least 1")
    right: list[list[float]] = [[] for _ in range(positions)]
    for original, said in zip(originals, recovered, strict=True):
        for place, token in enumerate(original[:positions]):
            right[place].append(float(place < len(said) and said[place] == token))
    return [mean_figure(values) if len(values) >= 2 else None for values in right]


def accuracy_by_length(originals: Texts, recovered: Texts) -> list[LengthBucket]:
    """Token accuracy by the originals' length, parted at the quartiles of the lengths at hand.

    A quartile is a length that occurs, the lowest that at least a quarter (half, three quarters) of texts do not
    exceed. Texts of one length are never parted; so there are fewer than four buckets where quartiles coincide, and
    one where all texts are equally long.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.

    Returns:
        At most four buckets, from short to long, none of them empty.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without tokens.
    """
    lengths = np.array(_lengths(originals))  # [n]
    if len(recovered) != len(lengths):
        raise ValueError(f"there are {len(lengths)} originals and {len(recovered)} recovered texts; give one for each")
    ends = np.unique([*np.quantile(lengths, QUARTILES, method="inverted_cdf"), lengths.max()])  # [buckets]
    owner = np.searchsorted(ends, lengths)  # [n], the first end that a length does not exceed
    buckets = []
    for bucket in range(len(ends)):
        rows = np.flatnonzero(owner == bucket).tolist()
        figure = token_accuracy([originals[i] for i in rows], [recovered[i] for i in rows]) if len(rows) >= 2 else None
        buckets.append(LengthBucket(int(lengths[rows].min()), int(lengths[rows].max()), len(rows), figure))
    return buckets


def _lengths(originals: Texts) -> list[int]:
    lengths = [len(original) for original in originals]
    if len(lengths) < 2 or min(lengths) == 0:
        raise ValueError("token accuracy needs at least 2 texts, each with a content token")
    return lengths
