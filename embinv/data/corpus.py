"""Texts on their way into a corpus: cleaning, identity, filtering and the choice of rows, as pure functions.

Invisible characters go (controls, bidirectional marks, soft hyphens, byte-order marks, the tag characters that can
hide a message), and so do halves of surrogate pairs, private characters and those that the Unicode tables of this
Python do not know. Two kinds stay, since they are writing: variation selectors (they are marks), and the zero-width
joiners U+200C and U+200D where they do something: between two letters of a script that joins (Persian, Hindi,
Sinhala), inside an emoji sequence, after the virama of Malayalam. The identity of a text counts no joiners at all.

Rows are chosen in two steps: the first occurrence of each text id stays, then the languages share the rows by
water-filling (equal or given shares; what a small language leaves over goes to the others), and within a language
a seeded hash of the id decides. So the choice depends on the set of texts and the seed, not on how the rows were
spread over files or workers.

What it does not do: it does not tokenise (that is alignment), assign splits (see `split`), read files, or
find near-duplicates (see `near_duplicates`): two texts are the same only up to case and whitespace.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DROP_REASONS = (None, "empty", "too_short", "too_long")  # by code: 0 stays

_INT63_MASK = 2**63 - 1

_JOINERS = "\u200c\u200d"
# Arabic to Sinhala, Myanmar, Khmer, Mongolian, Arabic presentation forms: what a joiner next to a letter can change.
_JOINING = "\u0600-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = "\u2194\u2195\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(
    f"(?!(?<=[{_JOINING}])[{_JOINERS}](?=[{_JOINERS}]*[{_JOINING}])"  # of several joiners in a row the first stays
    f"|(?<=[{_EMOJI}\ufe0f])\u200d(?=[{_JOINERS}]*[{_EMOJI}])"
    f"|(?<=\u0d4d)\u200d)[{_JOINERS}]"  # Malayalam before Unicode 5.1 wrote a final consonant so
)

# Characters that cleaning leaves as they are, that compose with no neighbour, and whose case Arrow folds as Python
# does: ASCII, Latin-1 without soft hyphen, micro sign and sharp s, Cyrillic, Arabic letters, dashes and quotation
# marks, kana, Han, Hangul. Texts of them take the fast path of `clean_batch`.
_PLAIN = (
    r"!-~\x{a1}-\x{ac}\x{ae}-\x{b4}\x{b6}-\x{de}\x{e0}-\x{ff}\x{0400}-\x{045f}"
    r"\x{060c}\x{061b}\x{061f}\x{0621}-\x{063a}\x{0641}-\x{064a}\x{2010}-\x{2027}"
    r"\x{3001}-\x{3029}\x{3041}-\x{3096}\x{30a1}-\x{30ff}\x{4e00}-\x{9fef}\x{ac00}-\x{d7a3}\x{ff01}-\x{ff20}"
)
_PLAIN_TEXT = pc.MatchSubstringOptions(f"^[{_PLAIN}]+(?: [{_PLAIN}]+)*$")  # in the syntax of RE2, which Arrow uses


def normalise(text: str) -> str:
    """Unicode NFC, visible characters and working joiners only, whitespace folded to single spaces, ends stripped."""
    if "\u200c" not in text and "\u200d" not in text:
        return _visible(text)
    settled = _visible(text, spared=_JOINERS)
    while (fewer := _visible(_STRAY_JOINER.sub("", settled), spared=_JOINERS)) != settled:
        settled = fewer  # what a joiner held apart may now compose, reorder or be one gap, and leave another one stray
    return settled


def _visible(text: str, spared: str = "") -> str:
    """Normal form without any invisible character but the spared."""
    if not text.isprintable():  # false for Unicode's control, format, surrogate, private and unassigned characters
        text = " ".join(text.split())  # mostly line breaks, and then it is printable now
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char in spared)
    return " ".join(unicodedata.normalize("NFC", text).split())


def identity_key(text: str) -> str:
    """What "the same text" means: equal up to case, whitespace, invisible characters and composition."""
    return _folded(_visible(text))


def _folded(visible: str) -> str:
    return unicodedata.normalize("NFC", visible.casefold())  # casefolding can decompose, hence NFC once more


def text_id(text: str) -> int:
    """A stable id in [0, 2^63): BLAKE2b of the identity key, the same on any machine.

    A character that one Python's Unicode tables know and another's do not counts for the first only.
    """
    return int(_ids([identity_key(text).encode()])[0])


def _ids(keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """[N] the 63-bit hashes of N identity keys in UTF-8."""
    empty = hashlib.blake2b(digest_size=8, person=b"embinv-text-id")
    digests = []
    for key in keys:
        hashed = empty.copy()  # cheaper than a new one
        hashed.update(key)
        digests.append(hashed.digest())
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).astype(np.int64) & np.int64(_INT63_MASK)


def drop_reason(text: str, min_chars: int, max_chars: int) -> str | None:
    """Why a text does not enter the corpus, judged on its normalised form.

    Args:
        text: Any text.
        min_chars: Fewest characters that stay.
        max_chars: Most characters that stay.

    Returns:
        "empty", "too_short", "too_long", or None for a text that stays.
    """
    length = np.array([len(normalise(text))])
    return DROP_REASONS[_drop_codes(length, min_chars, max_chars)[0]]


def _drop_codes(lengths: npt.NDArray[np.int64], min_chars: int, max_chars: int) -> npt.NDArray[np.int8]:
    """[N] places in DROP_REASONS for texts of these lengths."""
    cases = [lengths == 0, lengths < min_chars, lengths > max_chars]
    return np.select(cases, [1, 2, 3], 0).astype(np.int8)


def identity_keys(texts: pa.Array) -> list[bytes]:
    """`identity_key` of N texts (string, no nulls) in UTF-8, several times faster."""
    return _keys(texts, _plain(texts))


def _plain(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """[N] whether a text needs no cleaning."""
    return pc.call_function("match_substring_regex", [texts], _PLAIN_TEXT).to_numpy(zero_copy_only=False)


def _keys(texts: pa.Array, plain: npt.NDArray[np.bool_]) -> list[bytes]:
    """[N] identity keys; those of plain texts need lower case and nothing else."""
    keys = pc.call_function("utf8_lower", [texts]).cast(pa.binary()).to_pylist()
    for row in np.flatnonzero(~plain).tolist():
        keys[row] = identity_key(texts[row].as_py()).encode()
    return keys


class CleanBatch(NamedTuple):
    """What `clean_batch` makes of N texts.

    Attributes:
        texts: [N] string, normalised; the dropped ones too.
        ids: [N] text ids.
        reasons: [N] places in DROP_REASONS, 0 for a text that stays.
    """

    texts: pa.Array
    ids: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.int8]


def clean_batch(texts: pa.ChunkedArray | pa.Array, min_chars: int, max_chars: int) -> CleanBatch:
    """`normalise`, `text_id` and `drop_reason` of many texts, exactly, and several times faster.

    Texts of plain characters with single spaces need no cleaning, which one regular expression in Arrow tells, and
    only their hash is made row by row; the others are cleaned one at a time.

    Args:
        texts: [N] string or large_string; null is an empty text.
        min_chars: Fewest characters that stay.
        max_chars: Most characters that stay.

    Raises:
        ValueError: `texts` is of another type.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise ValueError(f"texts must be a column of strings, got {texts.type}; cast it first.")
    given = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    given = given.cast(pa.string()).fill_null("")
    plain = _plain(given)
    ids = _ids(_keys(given, plain))
    if not plain.all():
        rough = pa.array(~plain)
        cleaned = pa.array([normalise(text) for text in given.filter(rough).to_pylist()], pa.string())
        given = pc.call_function("replace_with_mask", [given, rough, cleaned])
    lengths = pc.call_function("utf8_length", [given]).to_numpy().astype(np.int64)
    return CleanBatch(given, ids, _drop_codes(lengths, min_chars, max_chars))


def language_quotas(
    available: Mapping[str, int], rows: int | None, shares: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Share rows over languages by water-filling.

    Every language gets its share; one that has less gives all it has, and the remainder is spread over the others in
    proportion to theirs. Rows that do not divide go, one each, where the fraction that is lost is largest, then to
    the languages with the most rows (the last by name among equals).

    Args:
        available: Rows at hand for each language.
        rows: Rows wanted in all, or None for all there are, whatever the shares.
        shares: Share of the rows for a language, in (0, 1]; languages that are not named divide equally what is left,
            and where the named ones take all of it they get only what those cannot fill.

    Returns:
        Rows to take from each language, in the order of `available`; they sum to min(rows, all rows).

    Raises:
        ValueError: A negative number of rows, wanted or available; shares out of range, or above 1 in all.
    """
    negative = [lang for lang, count in available.items() if count < 0]
    if negative:
        raise ValueError(f"The number of rows available cannot be negative, but is for {', '.join(negative)}.")
    shares = shares or {}
    if not all(0 < share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"Each share must lie in (0, 1] and all sum to at most 1, got {dict(shares)}.")
    if rows is None:
        return dict(available)
    if rows < 0:
        raise ValueError(f"The number of rows cannot be negative, got {rows}; use None for all rows.")
    weights = {lang: Fraction(str(share)) for lang, share in shares.items() if lang in available}  # 0.3 is 3/10
    unnamed = [lang for lang in available if lang not in shares]
    left = 1 - sum((Fraction(str(share)) for share in shares.values()), Fraction(0))
    if left > 0:
        weights |= {lang: left / len(unnamed) for lang in unnamed}
    quotas = dict.fromkeys(available, 0) | _fill(available, weights, rows)
    rest = {lang: Fraction(1) for lang in unnamed if lang not in weights}
    return quotas | _fill(available, rest, rows - sum(quotas.values()))


def _fill(available: Mapping[str, int], weights: Mapping[str, Fraction], rows: int) -> dict[str, int]:
    """Weighted water-filling in exact arithmetic: all that a language has, or its weight times one common level."""
    exact: dict[str, Fraction] = {}
    remaining, weight_left = Fraction(rows), sum(weights.values(), Fraction(0))
    for lang in sorted(weights, key=lambda lang: available[lang] / weights[lang]):
        exact[lang] = min(Fraction(available[lang]), remaining * weights[lang] / weight_left)
        remaining -= exact[lang]
        weight_left -= weights[lang]
    quotas = {lang: int(quota) for lang, quota in exact.items()}
    undivided = int(sum(exact.values(), Fraction(0))) - sum(quotas.values())
    by_claim = sorted(exact, key=lambda lang: (exact[lang] - quotas[lang], available[lang], lang), reverse=True)
    return quotas | {lang: quotas[lang] + 1 for lang in by_claim[:undivided]}


def select_rows(
    ids: npt.NDArray[np.int64],
    langs: npt.NDArray[np.str_],
    rows: int | None,
    seed: int,
    shares: Mapping[str, float] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which rows stay: the first of each id, then `rows` of them, shared over the languages.

    Args:
        ids: [N] text ids.
        langs: [N] language of each row.
        rows: Rows to keep in all, or None to deduplicate only.
        seed: Another seed, another choice within each language.
        shares: Share of the rows for a language, as in `language_quotas`; None for equal shares.

    Returns:
        [N] mask of the rows that stay. Which texts stay does not depend on the order of the rows, as long as the
        copies of a text agree in their language.

    Raises:
        ValueError: `ids` and `langs` differ in length, `rows` is negative, or the shares are no shares.
    """
    if ids.shape != langs.shape or ids.ndim != 1:
        raise ValueError(
            f"ids and langs must be one column each, equally long; got shapes {ids.shape} and {langs.shape}."
        )
    keep = np.zeros(len(ids), dtype=np.bool_)
    unique_ids, first = np.unique(ids, return_index=True)  # [U], [U]: the index of each id's first occurrence
    names, codes, counts = np.unique(langs[first], return_inverse=True, return_counts=True)  # [K], [U], [K]
    quotas = language_quotas(dict(zip(names.tolist(), counts.tolist(), strict=True)), rows, shares)
    quota = np.array([quotas[name] for name in names.tolist()], dtype=np.int64)  # [K]

    order = np.lexsort((seeded_key(unique_ids, seed, b"embinv-select"), codes))  # by language, then in the seeded order
    starts = np.cumsum(counts) - counts  # [K]: where each language begins in `order`
    rank = np.arange(len(order)) - starts[codes[order]]  # [U]: place within the language
    keep[first[order[rank < quota[codes[order]]]]] = True
    return keep


def seeded_key(ids: npt.NDArray[np.int64], seed: int, purpose: bytes) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014) on id XOR a key from the seed: a bijection, so ids never tie.

    Args:
        ids: [N] text ids.
        seed: Another seed, another order.
        purpose: At most 16 bytes; orders of different purposes are independent of each other.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=purpose).digest()
    key = ids.astype(np.uint64) ^ np.uint64(int.from_bytes(digest, "big"))
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
