"""An honest test set: held-out texts that the training texts already hold, whole or nearly, are removed.

A text counts as held if a training text has its identity key (the same up to case, whitespace and invisible
characters), or is a near-duplicate of it: their MinHash signatures share a whole band, and the share of equal places,
which estimates the Jaccard similarity of their character n-grams, reaches the threshold. Both notions are those by
which jobs/corpus.py drops copies, with the same places, bands and seed (see `near_duplicates`).

Only pairs of a held-out and a training text count, and one is enough. So no groups are built, as a corpus needs them,
and of the training texts nothing is kept but what one block of them holds: memory does not grow with their number.

What it does not do: it does not assign splits (see `split`), nor look for copies within the test set or the training
set, and it reads the texts as the pairs have them, cut to what the decoder can write.

Legend: N held-out texts, T training texts of a block, P places of a signature, b bands, M pairs sharing a band.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embinv.data.corpus import identity_keys
from embinv.data.near_duplicates import band_keys, choose_bands, signatures
from embinv.data.pairs import Pairs

THRESHOLD = 0.8  # as in the configs that set data.near_duplicates
NUM_PERM = 128  # as in jobs/selection.py
SEED = 0  # as data.seed by default

_PAIRS_AT_ONCE = 65_536  # 2 x 32 MB of signatures at P = 128


@dataclass(frozen=True)
class HeldOut:
    """What is left of a test set.

    Attributes:
        pairs: the rows that training does not hold, in the order that they had.
        exact: rows removed since a training text is the same.
        near: rows removed since a training text is almost the same, and none the same.
        threshold: estimated Jaccard similarity from which two texts are almost the same.
    """

    pairs: Pairs
    exact: int
    near: int
    threshold: float


def remove_known(
    test: Pairs,
    training: Pairs,
    threshold: float = THRESHOLD,
    seed: int = SEED,
    on_progress: Callable[[str], None] = lambda line: None,
    block: int = 65_536,
) -> HeldOut:
    """Removes the held-out rows whose text the training rows hold, whole or nearly.

    What stays depends on the texts, the threshold and the seed alone.

    Args:
        test: held-out pairs, in any order.
        training: the pairs that a model was trained on.
        threshold: estimated Jaccard similarity from which a text counts as held, in (0, 1).
        seed: of the signatures.
        on_progress: gets a line after each block.
        block: T, training texts looked at together; 65,536 take about 100 MB.

    Returns:
        The rows that stay, which may be none, and how many went.

    Raises:
        ValueError: the threshold is out of its range.
    """
    known = _NearCopies(test.texts, threshold, seed)
    own_keys = _keys(test.texts)
    wanted, found = set(own_keys), set()
    for start in range(0, len(training), block):
        texts = training.texts[start : start + block]
        found |= wanted.intersection(_keys(texts))
        known.look_at(texts)
        on_progress(f"looking for held-out texts among {start + len(texts):,} of {len(training):,} training texts")
    exact = np.array([key in found for key in own_keys], np.bool_)  # [N]
    near = known.near & ~exact  # [N]
    return HeldOut(test.take(np.flatnonzero(~(exact | near))), int(exact.sum()), int(near.sum()), threshold)


class _NearCopies:
    """Which of N texts have a near-duplicate among those looked at so far: `near` [N] bool."""

    def __init__(self, texts: list[str], threshold: float, seed: int) -> None:
        self.threshold, self.seed = threshold, seed
        self.bands, self.rows = choose_bands(threshold, NUM_PERM)
        self.signed = signatures(texts, NUM_PERM, seed)  # [N, P]
        keys = band_keys(self.signed, self.bands, self.rows)  # [N, b]
        self.order = np.argsort(keys, axis=0, kind="stable")  # [N, b]: of each band, the texts by key
        self.ordered = np.take_along_axis(keys, self.order, axis=0)  # [N, b]
        self.near = np.zeros(len(texts), np.bool_)

    def look_at(self, texts: list[str]) -> None:
        """Compares T other texts, each with those of ours that share a band."""
        signed = signatures(texts, NUM_PERM, self.seed)  # [T, P]
        for band, keys in enumerate(band_keys(signed, self.bands, self.rows).T):
            first = np.searchsorted(self.ordered[:, band], keys, side="left")  # [T]: where its key begins in `order`
            last = np.searchsorted(self.ordered[:, band], keys, side="right")  # [T]
            others = np.flatnonzero(last > first)
            self._compare(self.order[:, band], first[others], last[others], signed[others])

    def _compare(
        self,
        order: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        last: npt.NDArray[np.int64],
        signed: npt.NDArray[np.uint32],
    ) -> None:
        """Marks our texts order[first[i]:last[i]] where text i with signed[i] is alike; ours that are marked rest.

        Pairs are numbered 0 to M - 1 and made a few at a time, since a key that a whole block shares has many.
        """
        ends = np.cumsum(last - first)
        count = int(ends[-1]) if len(ends) else 0  # M
        for start in range(0, count, _PAIRS_AT_ONCE):
            number = np.arange(start, min(start + _PAIRS_AT_ONCE, count))
            other = np.searchsorted(ends, number, side="right")
            own = order[last[other] - (ends[other] - number)]
            unmarked = ~self.near[own]
            own, other = own[unmarked], other[unmarked]
            alike = (self.signed[own] == signed[other]).mean(axis=1) >= self.threshold
            self.near[own[alike]] = True


def _keys(texts: list[str]) -> list[bytes]:
    return identity_keys(pa.array(texts, pa.string()))
