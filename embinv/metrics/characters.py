"""Characters of texts in any script: the character error rate, and where words begin and end.

A word is a run of letters, marks and numbers. Scripts that put no spaces between words (SCRIPTS_WITHOUT_SPACES) have
no such runs; there each letter with its marks stands for a word, and a word boundary lies between any two of them.
Their digits are words like all others. What this does not do: segment such scripts into real words, for which each
language would need a dictionary.
"""

import unicodedata
from collections.abc import Sequence

import regex

from embinv.metrics.figures import Figure, ratio_figure

SCRIPTS_WITHOUT_SPACES = (
    "Balinese Bopomofo Han Hiragana Javanese Katakana Khmer Lao Myanmar "
    "New_Tai_Lue Tai_Le Tai_Tham Tai_Viet Thai Yi"  # typos: ignore-line
).split()
"""Unicode scripts written without spaces (UAX #14, classes ID, CJ, SA, AK). Korean is none: it has spaces."""

# The long vowel of kana, U+30FC, belongs to no single script.
_SCRIPTS = "".join(rf"\p{{Script={name}}}" for name in SCRIPTS_WITHOUT_SPACES)
_ALONE = rf"[{_SCRIPTS}\u30fc&&\p{{L}}\p{{Nl}}]"
_TOGETHER = rf"[\p{{L}}\p{{N}}\p{{M}}--{_ALONE}]"
_WORD = regex.compile(rf"(?V1){_ALONE}\p{{M}}*|{_TOGETHER}+")
_INSIDE = regex.compile(rf"(?V1){_TOGETHER}{_TOGETHER}|[\p{{L}}\p{{N}}\p{{M}}]\p{{M}}")


def character_error_rate(originals: Sequence[str], recovered: Sequence[str]) -> Figure:
    """Edits that turn recovered texts into the originals, for each character of the originals; can exceed 1.

    Edits are insertions, deletions and substitutions of one code point (Levenshtein distance), after NFC, since
    canonically equal texts are the same text; case, accents and spaces count. The figure is a ratio over all texts,
    sum of distances / sum of lengths, with the standard error of `ratio_figure`; so long texts weigh more.

    Args:
        originals: n true texts.
        recovered: n recovered texts; an empty one costs the whole length.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without characters.
    """
    from rapidfuzz.distance import Levenshtein

    true, said = ([unicodedata.normalize("NFC", text) for text in texts] for texts in (originals, recovered))
    distances = [Levenshtein.distance(x, y) for x, y in zip(true, said, strict=True)]
    if len(true) < 2 or "" in true:
        raise ValueError("the character error rate needs at least 2 texts, each with a character")
    return ratio_figure(distances, [len(text) for text in true])


def normal_form(text: str) -> str:
    """The text without differences of case, width or composition (NFKC and case folding)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words(text: str) -> list[str]:
    """The words of a text in normal form; single letters with their marks in scripts without spaces."""
    return _WORD.findall(normal_form(text))


def is_inside_word(text: str, place: int) -> bool:
    """Whether a cut before `text[place]` would go through a word, or part a letter from its mark."""
    return 0 < place < len(text) and _INSIDE.fullmatch(text[place - 1 : place + 1]) is not None
