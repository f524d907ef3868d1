"""From one file of texts to Arrow tables (text, lang), block by block.

Memory does not grow with the file, and of a remote file no more is downloaded than is read. Good rows before a damaged
place are given out before the damage is reported: all of them in JSON and text files, whole row groups of Parquet, and
of CSV all but the few MiB that its parser reads ahead.
What it does not do: it does not clean or choose texts (see `corpus`), nor list files (see `sources`).
"""

from collections.abc import Iterator

import pyarrow as pa

from embinv.data.formats import DAMAGE, PARSERS, Columns, open_decompressed, parquet_columns, split_kind
from embinv.data.sources import SourceFile
from embinv.data.stores import open_random, reaching

UNKNOWN_LANGUAGE = "und"


class UnreadableFile(ValueError):
    """A file is damaged from some place on.

    Attributes:
        url: which file.
        reason: what is wrong with it.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)  # both stay arguments, so that it can be pickled
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: is damaged ({self.reason}); fetch it anew or leave it out"


def read_batches(file: SourceFile, text_column: str, batch_rows: int = 8192) -> Iterator[pa.Table]:
    """Reads one file.

    Args:
        file: what to read.
        text_column: column or JSON key that holds the text.
        batch_rows: rows in a table at most.

    Yields:
        Tables of `text` (string, null where a row has none) and `lang` (string: that of the file, else of its `lang`
        column, else `und`). Closing the generator closes the file and its connection.

    Raises:
        UnreadableFile: the file is damaged; good rows before that place have been given out.
        ValueError: it has no such column, or cannot be reached; the message names the URL and the way out.
    """
    with reaching(file.url):
        try:
            if file.kind == ".parquet":
                with open_random(file.url, file.path, file.size) as raw:
                    yield from _tables(parquet_columns(raw, file, text_column, batch_rows), file.lang, batch_rows)
            else:
                parse = PARSERS[split_kind(file.kind)[0]]
                with open_decompressed(file) as stream:
                    yield from _tables(parse(stream, file, text_column), file.lang, batch_rows)
        except DAMAGE as error:
            raise UnreadableFile(file.url, _first_line(error)) from error
        except OSError as error:
            if type(error) is OSError and error.errno is None:  # Arrow's own, not one of a store
                raise UnreadableFile(file.url, _first_line(error)) from error
            raise


def _tables(blocks: Iterator[Columns], lang: str | None, batch_rows: int) -> Iterator[pa.Table]:
    """Tables of at most batch_rows rows, with a language in each."""
    for text, langs in blocks:
        if lang is not None or langs is None:
            langs = pa.repeat(pa.scalar(lang or UNKNOWN_LANGUAGE, pa.string()), len(text))
        table = pa.table({"text": text.cast(pa.string()), "lang": langs.cast(pa.string()).fill_null(UNKNOWN_LANGUAGE)})
        for start in range(0, len(table), batch_rows):
            yield table.slice(start, batch_rows)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
