"""How much of which source a corpus has to read: only as many files as the wanted rows of each language need.

A supply is what there is in one language. It is read in waves: one file to learn how many good rows a file gives, then
as many as the rest needs, until the language has its share. What a language lacks when its files are used up, the
others give. Files come in a seeded order, and a file is read from its beginning, so what is read does not depend on the
speed of anything.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from embinv.data.corpus import language_quotas
from embinv.data.records import BLOCK_SIZE, LANGUAGES
from embinv.data.settings import DataSettings, TextSource
from embinv.data.sources import SourceFile, list_files
from embinv.data.stores import LOCAL, protocol_of
from jobs.texts import RECORDS_AT_ONCE, Piece, RecordBlocks

RECORDS = "records"
RECORD_ROWS = 10_000  # synthetic records, where nobody says how many
MOST_RECORD_PIECES = 2_000  # of one language: templates repeat themselves in the end
SPARE = 1.05  # rows read for each that is wanted: some are copies
GROWTH = 8  # files opened at most for each one before: the first may be a poor one


@dataclass
class Supply:
    """What there is in one language, and how much of it was read.

    Attributes:
        lang: of all of it, or None if its rows say so themselves.
        sources: files or record blocks, in the order in which they are read.
        want: rows to look for; None takes all.
        expected: good rows of one source, if that is known.
        asked: good rows asked of each source that was opened.
        found: distinct good rows so far.
    """

    lang: str | None
    sources: Sequence[SourceFile | RecordBlocks]
    want: int | None = None
    expected: int | None = None
    asked: list[int] = field(default_factory=list)
    found: int = 0
    _unfinished: list[int] = field(default_factory=list)  # sources that had more than was asked of them
    _waits: bool = False  # for what the last wave gives
    _stale: bool = False  # that was nothing new

    def look(self, found: int, given: Callable[[str], int]) -> None:
        """Takes note of what the last wave gave.

        Args:
            found: distinct good rows of this supply so far.
            given: good rows that were read of a URL, copies included.
        """
        if self._waits:
            self._stale = found <= self.found
            self._unfinished = [i for i, asked in enumerate(self.asked) if given(self.sources[i].url) >= asked]
        self.found = found

    @property
    def used_up(self) -> bool:
        """Whether reading on would give nothing new."""
        all_opened = len(self.asked) == len(self.sources)
        if self.expected is not None:  # records go on for long, but repeat themselves
            return self._stale or all_opened
        return all_opened and (self._stale or not self._unfinished)

    def next_pieces(self) -> list[Piece]:
        """What to read next; nothing when it is enough."""
        pieces = self._all() if self.want is None else self._some(math.ceil((self.want - self.found) * SPARE))
        self._waits = bool(pieces)
        return pieces

    def _all(self) -> list[Piece]:
        rest = self.sources[len(self.asked) :]
        self.asked += [0] * len(rest)
        return [Piece(source, None) for source in rest]

    def _some(self, missing: int) -> list[Piece]:
        if missing <= 0 or self.used_up:
            return []
        opened = len(self.asked)
        if opened < len(self.sources):
            expected = self.expected or (max(1, self.found // opened) if opened else missing)
            most = len(self.sources) if self.expected else max(1, GROWTH * opened)
            chosen = list(range(len(self.sources)))[opened : opened + min(most, math.ceil(missing / expected))]
            self.asked += [0] * len(chosen)
        else:
            chosen = self._unfinished
        each = math.ceil(missing / len(chosen)) + 1
        pieces = [Piece(self.sources[i], each, after=self.asked[i]) for i in chosen]
        for i in chosen:
            self.asked[i] += each
        return pieces


def open_supplies(settings: DataSettings) -> list[Supply]:
    """Lists the files of all sources, grouped by language. A language that a source names is not put into `{lang}`.

    Raises:
        ValueError: nothing is there, a place cannot be reached, or `records` does not speak a language.
    """
    files: dict[str | None, list[SourceFile]] = {}
    spoken: dict[str, None] = {}
    named = {source.lang for source in settings.sources if source.lang is not None}
    for source in settings.sources:
        if source.path == RECORDS:
            spoken |= dict.fromkeys(_record_languages(source, settings))
            continue
        for part in source.expanded([lang for lang in settings.languages if lang not in named]):
            files.setdefault(part.lang, []).extend(list_files(part, settings.seed))
    supplies = [Supply(lang, list({file.url: file for file in found}.values())) for lang, found in files.items()]
    quotas = language_quotas(dict.fromkeys(spoken, RECORD_ROWS), RECORD_ROWS)
    for lang in spoken:
        blocks = [RecordBlocks(lang, number) for number in range(MOST_RECORD_PIECES)]
        supplies.append(Supply(lang, blocks, quotas[lang], RECORDS_AT_ONCE * BLOCK_SIZE))
    _share_out(supplies, settings)
    return supplies


def _record_languages(source: TextSource, settings: DataSettings) -> list[str]:
    languages = [source.lang] if source.lang else settings.languages or list(LANGUAGES)
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise ValueError(
            f"data.languages: `{RECORDS}` does not speak {', '.join(unknown)}; it has {', '.join(LANGUAGES)}"
        )
    return languages


def next_wave(
    supplies: list[Supply], settings: DataSettings, found: Mapping[str, int], given: Callable[[str], int]
) -> list[Piece]:
    """What to read next of all supplies; nothing when every language has its share or is used up.

    Args:
        supplies: from `open_supplies`, changed in place.
        settings: rows and shares.
        found: distinct good rows of each language so far.
        given: good rows that were read of a URL, copies included.
    """
    known = {supply.lang for supply in supplies}
    unnamed = sum(count for lang, count in found.items() if lang not in known)
    for supply in supplies:
        supply.look(unnamed if supply.lang is None else found.get(supply.lang, 0), given)
    _share_out(supplies, settings)
    return [piece for supply in supplies for piece in supply.next_pieces()]


def _share_out(supplies: list[Supply], settings: DataSettings) -> None:
    """Sets the rows to look for in each language: its share, and what those that are used up leave over.

    Where the languages of some files are not known, any of them may turn out to be all there is of a language, so the
    others are asked for all rows. Files without a language are read whole, but not those from far away.
    """
    rows = settings.rows
    if rows is None:
        return
    if any(supply.lang is None for supply in supplies):
        for supply in supplies:
            here = supply.lang is None and all(protocol_of(source.url) == LOCAL for source in supply.sources)
            supply.want = None if here else rows
        return
    available: dict[str, int] = {}
    for supply in supplies:
        assert supply.lang is not None
        available[supply.lang] = max(available.get(supply.lang, 0), supply.found if supply.used_up else rows)
    quotas = language_quotas(available, rows, settings.shares)
    for supply in supplies:
        assert supply.lang is not None
        supply.want = quotas[supply.lang]
