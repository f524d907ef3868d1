"""Redacted examples: a recovered text and its original, with what may name a person put behind blocks.

A block says what kind of thing it hides and is as wide for a long one as for a short one: [PERSON 1 ███]. Hidden are
labelled and recognised personal data, every word of a labelled value, everything with a digit, and each word that
fewer than k of the recovered texts hold. In scripts without spaces a letter stays only within three letters in a row
that k texts hold. In one example the same words have the same number on both sides, so that what was recovered can be
told from what was made up. Labelled words are the same with accents and without, since uncased vocabularies drop these.
Masking errs towards hiding, and is no proof: a name that k texts hold and nobody labelled stays.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from embinv.audit.personal_data import Span
from embinv.audit.spacing import without_accents
from embinv.metrics.characters import is_inside_word, normal_form, words

WORD, NUMBER = "WORD", "NUMBER"
BLOCK = "███"
WINDOW = 3  # letters in a row of a script without spaces
MOSTLY = 0.5
"""A word is hidden everywhere if at least this share of the originals that hold it have it in a labelled value."""
IDENTIFYING = frozenset("PERSON EMAIL PHONE ID ADDRESS".split())
"""Kinds of labelled values that say who somebody is."""


class Piece(NamedTuple):
    """A word of a text, and what it is counted as: itself, or the letters in a row that it is part of."""

    start: int
    end: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What may be shown of any text.

    Attributes:
        common: words, and letters in a row, that at least k recovered texts hold, in normal form.
        labelled: words of labelled values, with their accents and without, and their kinds, the one to be told first.
    """

    common: frozenset[str]
    labelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names_somebody(self, word: str) -> bool:
        """Whether a word, however it is accented, belongs to a labelled value that says who somebody is."""
        return any(kind in IDENTIFYING for form in _forms(word) for kind in self.labelled.get(form, ()))


class WordCounts:
    """In how many texts each word stands, and each word of a labelled value; filled block by block."""

    def __init__(self) -> None:
        self._texts: Counter[str] = Counter()
        self._originals: Counter[str] = Counter()
        self._labelled: Counter[str] = Counter()
        self._kinds: dict[str, Counter[str]] = {}

    def add(self, recovered: Iterable[str]) -> None:
        """Counts recovered texts."""
        for text in recovered:
            self._texts.update({key for piece in pieces(text) for key in piece.keys})

    def add_labelled(self, original: str, entities: Sequence[tuple[str, str]]) -> None:
        """Counts an original with its labelled values, as (kind, surface form)."""
        self._originals.update(set(_forms(original)))
        for form, kinds in _kinds_by_form(entities).items():
            self._labelled[form] += 1
            self._kinds.setdefault(form, Counter()).update(set(kinds))

    def shown(self, k: int) -> Shown:
        """What may be shown if k texts must hold it."""
        return Shown(
            frozenset(word for word, count in self._texts.items() if count >= k),
            {
                form: _ranked(self._kinds[form])
                for form, count in self._labelled.items()
                if count >= MOSTLY * self._originals[form]
            },
        )


def mask(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], entities: Sequence[tuple[str, str]], shown: Shown
) -> list[str]:
    """Hides what may name somebody in texts that belong together, such as a recovered text and its original.

    Args:
        texts: of one example.
        spans: what was recognised in each.
        entities: labelled values of the example, as (kind, surface form); their words are hidden in all of its texts.
        shown: what may be shown of any text.

    Returns:
        The texts with blocks, numbered alike where they hide the same.
    """
    own = {form: _ranked(kinds) for form, kinds in _kinds_by_form(entities).items()}
    numbers: dict[tuple[str, str], int] = {}
    return [_masked(text, found, own, shown, numbers) for text, found in zip(texts, spans, strict=True)]


def pieces(text: str) -> Iterator[Piece]:
    """The words of a text, in order; letter by letter in scripts without spaces."""
    bounds = [0, *(place for place in range(1, len(text)) if not is_inside_word(text, place)), len(text)]
    found = [(start, end) for start, end in pairwise(bounds) if any(map(str.isalnum, text[start:end]))]
    row: list[tuple[int, int]] = []
    for start, end in found:
        if row and row[-1][1] != start:
            yield from _keyed(text, row)
            row = []
        row.append((start, end))
    yield from _keyed(text, row)


def _forms(text: str) -> list[str]:
    """The words of a text, and each without its accents."""
    return [form for word in words(text) for form in dict.fromkeys((word, without_accents(word)))]


def _kinds_by_form(entities: Sequence[tuple[str, str]]) -> dict[str, Counter[str]]:
    """How often a word of one text's labelled values is labelled as what."""
    found: dict[str, Counter[str]] = {}
    for kind, surface in entities:
        for form in set(_forms(surface)):
            found.setdefault(form, Counter())[kind] += 1
    return found


def _ranked(kinds: Counter[str]) -> tuple[str, ...]:
    """The more frequent kinds first; of equally frequent ones those that say who somebody is."""
    return tuple(sorted(kinds, key=lambda kind: (-kinds[kind], kind not in IDENTIFYING, kind)))


def _keyed(text: str, row: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """Pieces that follow one another without anything between them: a word alone, or letters of a script without."""
    plain = [normal_form(text[start:end]) for start, end in row]
    size = min(WINDOW, len(row))
    for place, (start, end) in enumerate(row):
        firsts = range(max(0, place - size + 1), min(place, len(row) - size) + 1)
        yield Piece(start, end, tuple("".join(plain[first : first + size]) for first in firsts))


def _masked(
    text: str,
    spans: Sequence[Span],
    own: Mapping[str, tuple[str, ...]],
    shown: Shown,
    numbers: dict[tuple[str, str], int],
) -> str:
    hidden = sorted(_joined(text, _hidden(text, spans, own, shown)))
    parts, place = [], 0
    for start, end, kind in hidden:
        key = (kind, " ".join(map(without_accents, words(text[start:end]))))
        number = numbers.setdefault(key, 1 + sum(other == kind for other, _ in numbers))
        parts += [text[place:start], f"[{kind} {number} {BLOCK}]"]
        place = end
    return "".join(parts) + text[place:]


def _hidden(text: str, spans: Sequence[Span], own: Mapping[str, tuple[str, ...]], shown: Shown) -> Iterator[Span]:
    """What is recognised, and the words beside it that must not be seen."""
    yield from spans
    for start, end, keys in pieces(text):
        if any(start < span.end and span.start < end for span in spans):
            continue
        said = _forms(text[start:end])
        kind = next((kinds[form][0] for kinds in (own, shown.labelled) for form in said if form in kinds), None)
        if kind is None and any(map(str.isnumeric, text[start:end])):
            kind = NUMBER
        if kind is None and not any(key in shown.common for key in keys):
            kind = WORD
        if kind is not None:
            yield Span(start, end, kind)


def _joined(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Neighbours of one kind as one block, so that their number and the signs between them are hidden too."""
    before: Span | None = None
    for span in sorted(spans):
        if before is not None and span.kind == before.kind and not any(map(str.isalnum, text[before.end : span.start])):
            before = Span(before.start, span.end, span.kind)
            continue
        if before is not None:
            yield before
        before = span
    if before is not None:
        yield before
