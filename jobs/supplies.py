"""How much of which source a corpus has to read: only as many files as the wanted rows of each language need.

A supply is what there is in one language. It is read in waves: one file to learn how many good rows a file gives, then
as many as the rest needs, until the language has its share or its files are used up. Files come in a seeded order, and
a file is read from its beginning, so what is read does not depend on the speed of anything.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

from embinv.data.corpus import language_quotas
from embinv.data.records import BLOCK_SIZE, LANGUAGES
from embinv.data.settings import DataSettings, TextSource
from embinv.data.sources import SourceFile, list_files
from jobs.texts import RECORDS_AT_ONCE, Piece, RecordBlocks

RECORDS = "records"
RECORD_ROWS = 10_000  # synthetic records, where nobody says how many
MOST_RECORD_PIECES = 2_000  # of one language: templates repeat themselves in the end
SPARE = 1.05  # rows read for each that is wanted: some are copies


class Supply:
    """What there is in one language, and how much of it was read.

    Args:
        lang: of all of it, or None if its rows say so themselves.
        sources: files or record blocks, in the order in which they are read.
        want: rows of this language; None takes all.
        expected: good rows of one source, if that is known.
    """

    def __init__(
        self,
        lang: str | None,
        sources: Iterator[SourceFile | RecordBlocks],
        want: int | None,
        expected: int | None = None,
    ) -> None:
        self.lang, self.sources, self.want, self.expected = lang, sources, want, expected
        self.read = 0
        self.found = 0  # distinct good rows at the last look

    def next_pieces(self, found: Mapping[str, int]) -> list[Piece]:
        """What to read next, given the distinct good rows of each language so far; nothing when it is enough."""
        if self.want is None or self.lang is None:
            return [Piece(source, None) for source in self.sources]
        now = found.get(self.lang, 0)
        missing = self.want - now
        if missing <= 0 or (self.read and now == self.found):  # it has its share, or gives nothing new any more
            return []
        self.found = now
        each = self.expected or (max(1, now // self.read) if self.read else missing)
        sources = list(islice(self.sources, -(-round(missing * SPARE) // each)))
        self.read += len(sources)
        return [Piece(source, -(-round(missing * SPARE) // len(sources)) + 1) for source in sources]


def open_supplies(settings: DataSettings) -> list[Supply]:
    """Lists the files of all sources, grouped by language.

    Raises:
        ValueError: nothing is there, a place cannot be reached, or `records` does not speak a language.
    """
    files: dict[str | None, list[SourceFile]] = {}
    spoken: list[str] = []
    named = {source.lang for source in settings.sources if source.lang is not None}
    for source in settings.sources:
        if source.path == RECORDS:
            spoken += _record_languages(source, settings)
            continue
        for part in source.expanded([lang for lang in settings.languages if lang not in named]):
            files.setdefault(part.lang, []).extend(list_files(part, settings.seed))
    wants = _wants([*files, *spoken], settings, bool(spoken))
    supplies = [Supply(lang, iter(found), wants[lang]) for lang, found in files.items()]
    for lang in spoken:
        blocks = map(partial(RecordBlocks, lang), range(MOST_RECORD_PIECES))
        supplies.append(Supply(lang, blocks, wants[lang] or RECORD_ROWS, RECORDS_AT_ONCE * BLOCK_SIZE))
    return supplies


def _record_languages(source: TextSource, settings: DataSettings) -> list[str]:
    languages = [source.lang] if source.lang else settings.languages or list(LANGUAGES)
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise ValueError(
            f"data.languages: `{RECORDS}` does not speak {', '.join(unknown)}; it has {', '.join(LANGUAGES)}"
        )
    return languages


def _wants(languages: list[str | None], settings: DataSettings, records: bool) -> dict[str | None, int | None]:
    """Rows to look for in each language; more than its share where the languages of some sources are not known."""
    rows = settings.rows if settings.rows is not None or not records else RECORD_ROWS
    if rows is None:
        return dict.fromkeys(languages)
    if None in languages:
        return {lang: None if lang is None else rows for lang in languages}
    known = [lang for lang in languages if lang is not None]
    return dict(language_quotas(dict.fromkeys(known, rows), rows, settings.shares))
