"""The split of a text: a hash of what it says, so that one text stands in one split, whatever the run or machine.

The hash is BLAKE2b of the identity key (case and whitespace do not count), under another personalisation than
the text's id, so that splits and ids are independent. A point u in [0, 1) comes of it: test first, then
validation, then correction, then train; so a change of the validation share moves no text into or out of the test
split, and a share for correction takes texts from train alone. It does not balance languages: each has its share only
on average.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embinv.data.corpus import identity_keys

Split = Literal["train", "validation", "test", "correction"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "correction")
TRAIN, VALIDATION, TEST, CORRECTION = range(4)


def assign_split(text: str, validation: float, test: float, correction: float = 0.0) -> Split:
    """The split of a text.

    Args:
        text: Any text; only its identity key counts.
        validation: Share of the texts for validation, in [0, 1).
        test: Share of the texts for test, in [0, 1).
        correction: Share of the texts that only a corrector learns from, in [0, 1).

    Returns:
        "train", "validation", "test" or "correction".

    Raises:
        ValueError: A share is negative, or together they leave nothing to train on.
    """
    return SPLITS[assign_splits([text], validation, test, correction)[0]]


def assign_splits(
    texts: Sequence[str] | np.ndarray | pa.Array, validation: float, test: float, correction: float = 0.0
) -> npt.NDArray[np.int8]:
    """The splits of N texts, as `assign_split` gives them: [N] indices into SPLITS.

    Raises:
        ValueError: A share is negative, or together they leave nothing to train on.
    """
    if not (min(validation, test, correction) >= 0 and validation + test + correction < 1):
        raise ValueError(
            f"The shares must not be negative and must sum to less than 1, got {validation=}, {test=} and "
            f"{correction=}."
        )
    empty = hashlib.blake2b(digest_size=8, person=b"embinv-split")
    digests = []
    for key in identity_keys(pa.array(texts, pa.string())):
        hashed = empty.copy()  # cheaper than a new one
        hashed.update(key)
        digests.append(hashed.digest())
    points = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.float64) / 2**64
    bounds = np.cumsum([test, validation, correction])
    return np.array([TEST, VALIDATION, CORRECTION, TRAIN], dtype=np.int8)[np.searchsorted(bounds, points, "right")]
