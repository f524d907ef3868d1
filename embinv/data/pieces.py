"""The part of a text that each of its tokens writes, so that tokens can be shaded and still read as the text.

A token decoded alone is not that part: word pieces carry marks, spaces stand before some tokens and not before others,
decoders close up punctuation, and a character of a byte-level tokenizer may take several tokens. So the text of the
first tokens is held against the whole, and a token is given what it adds to their common beginning.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby


def pieces(token_ids: Sequence[int | None], decode: Callable[[list[int]], str]) -> list[str | None]:
    """The text of each token; None where a token is hidden.

    Put together, the pieces of a run of known tokens are the text that they decode to.

    Args:
        token_ids: ids, None where hidden.
        decode: ids to text.
    """
    found: list[str | None] = []
    for hidden, run in groupby(token_ids, key=lambda token: token is None):
        tokens = list(run)
        found += [None] * len(tokens) if hidden else _known([token for token in tokens if token is not None], decode)
    return found


def _known(ids: list[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    whole, start = decode(ids), 0
    for count in range(1, len(ids) + 1):
        end = len(whole) if count == len(ids) else max(start, _common(decode(ids[:count]), whole))
        yield whole[start:end]
        start = end


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
