"""Texts on their way into a corpus: cleaning, identity, filtering and the choice of rows, as pure functions.

Rows are chosen in two steps: the first occurrence of each text id stays, then the languages share the rows by
water-filling (equal shares; what a small language leaves over goes to the others), and within a language a
seeded hash of the id decides. So the choice depends on the set of texts and the seed, not on how the rows
were spread over files or workers.

What it does not do: it does not tokenise (that is alignment), assign splits (see `split`), read files, or
find near-duplicates: two texts are the same only up to case and whitespace.
"""

import hashlib
import unicodedata
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_INT63_MASK = 2**63 - 1


def normalise(text: str) -> str:
    """Unicode NFC, printable characters only, runs of whitespace of any kind folded to one space, ends stripped."""
    if not text.isprintable():  # drops Unicode's control, format, surrogate, private and unassigned characters
        text = "".join(" " if char.isspace() else char for char in text if char.isspace() or char.isprintable())
    return " ".join(unicodedata.normalize("NFC", text).split())


def identity_key(text: str) -> str:
    """What "the same text" means: equal up to case, whitespace, invisible characters and composition."""
    return unicodedata.normalize("NFC", normalise(text).casefold())  # casefolding can decompose, hence NFC once more


def text_id(text: str) -> int:
    """A stable id in [0, 2^63): BLAKE2b of the identity key, the same on any machine."""
    digest = hashlib.blake2b(identity_key(text).encode(), digest_size=8, person=b"embinv-text-id").digest()
    return int.from_bytes(digest, "big") & _INT63_MASK


def drop_reason(text: str, min_chars: int, max_chars: int) -> str | None:
    """Why a text does not enter the corpus, judged on its normalised form.

    Args:
        text: Any text.
        min_chars: Fewest characters that stay.
        max_chars: Most characters that stay.

    Returns:
        "empty", "too_short", "too_long", or None for a text that stays.
    """
    length = len(normalise(text))
    if length == 0:
        return "empty"
    if length < min_chars:
        return "too_short"
    if length > max_chars:
        return "too_long"
    return None


def language_quotas(available: Mapping[str, int], rows: int | None) -> dict[str, int]:
    """Share rows over languages by water-filling.

    Every language gets an equal share; one that has less gives all it has, and the remainder is spread over the
    others. What does not divide goes, one row each, to the languages with the most rows (by name among equals).

    Args:
        available: Rows at hand for each language.
        rows: Rows wanted in all, or None for all there are.

    Returns:
        Rows to take from each language, in the order of `available`; they sum to min(rows, all rows).

    Raises:
        ValueError: A negative number of rows, wanted or available.
    """
    negative = [lang for lang, count in available.items() if count < 0]
    if negative:
        raise ValueError(f"The number of rows available cannot be negative, but is for {', '.join(negative)}.")
    if rows is None:
        return dict(available)
    if rows < 0:
        raise ValueError(f"The number of rows cannot be negative, got {rows}; use None for all rows.")
    quotas = dict.fromkeys(available, 0)
    remaining = rows
    for served, lang in enumerate(sorted(available, key=lambda lang: (available[lang], lang))):
        quotas[lang] = min(available[lang], remaining // (len(available) - served))
        remaining -= quotas[lang]
    return quotas


def select_rows(
    ids: npt.NDArray[np.int64],
    langs: npt.NDArray[np.str_],
    rows: int | None,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Which rows stay: the first of each id, then `rows` of them, shared over the languages.

    Args:
        ids: [N] text ids.
        langs: [N] language of each row.
        rows: Rows to keep in all, or None to deduplicate only.
        seed: Another seed, another choice within each language.

    Returns:
        [N] mask of the rows that stay. Which texts stay does not depend on the order of the rows, as long as the
        copies of a text agree in their language.

    Raises:
        ValueError: `ids` and `langs` differ in length, or `rows` is negative.
    """
    if ids.shape != langs.shape or ids.ndim != 1:
        raise ValueError(
            f"ids and langs must be one column each, equally long; got shapes {ids.shape} and {langs.shape}."
        )
    keep = np.zeros(len(ids), dtype=np.bool_)
    unique_ids, first = np.unique(ids, return_index=True)  # [U], [U]: the index of each id's first occurrence
    names, codes, counts = np.unique(langs[first], return_inverse=True, return_counts=True)  # [K], [U], [K]
    quotas = language_quotas(dict(zip(names.tolist(), counts.tolist(), strict=True)), rows)
    quota = np.array([quotas[name] for name in names.tolist()], dtype=np.int64)  # [K]

    order = np.lexsort((_shuffle_key(unique_ids, seed), codes))  # by language, then in the seeded order
    starts = np.cumsum(counts) - counts  # [K]: where each language begins in `order`
    rank = np.arange(len(order)) - starts[codes[order]]  # [U]: place within the language
    keep[first[order[rank < quota[codes[order]]]]] = True
    return keep


def _shuffle_key(ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014) on id XOR a key from the seed: a bijection, so ids never tie."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"embinv-select").digest()
    key = ids.astype(np.uint64) ^ np.uint64(int.from_bytes(digest, "big"))
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
