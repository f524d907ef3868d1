"""The formats of text files: from an open stream to columns (text, lang), one parser for each.

JSON files hold one object a line, text files one text a line. A parser gives out the good rows before a damaged place
and then raises what the damage raised; `reading` says it in a sentence.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from embinv.data.sources import COMPRESSIONS, SourceFile
from embinv.data.stores import RANGE_BYTES, open_stream

BLOCK_BYTES = 1 << 20  # what is parsed at once, uncompressed
LINE_BYTES = 64 << 20  # a longer line is no text
DAMAGE = (pa.ArrowException, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)
_CHUNK_BYTES = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    ".zst": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"),
}

Column = pa.Array | pa.ChunkedArray
Columns = tuple[Column, Column | None]  # text, and lang if the file has it


def split_kind(kind: str) -> tuple[str, str]:
    """Format and compression: `.json.gz` is `.json` and `.gz`."""
    packed = next(suffix for suffix in reversed(COMPRESSIONS) if kind.endswith(suffix))
    return kind.removesuffix(packed), packed


@contextmanager
def open_decompressed(file: SourceFile) -> Iterator[Any]:
    """Opens a file to be read from its beginning on, as the bytes before compression."""
    decompress = _DECOMPRESSORS[split_kind(file.kind)[1]]
    with open_stream(file.url, file.path, file.size) as raw, closing(decompress(raw)) as stream:
        yield stream


def _line_blocks(stream: Any) -> Iterator[bytes]:
    """Whole lines, about BLOCK_BYTES at a time; those that stand before a damage come before its exception."""
    read = getattr(stream, "read1", stream.read)  # read1 gives what it has, so a damage costs no good bytes
    parts, held = [], 0
    first, damage = True, None
    while True:
        try:
            chunk = read(_CHUNK_BYTES)
        except (*DAMAGE, OSError) as error:
            chunk, damage = b"", error
        if not chunk:
            break
        if first:
            chunk, first = chunk.removeprefix(_BYTE_ORDER_MARK), False
        parts.append(chunk)
        held += len(chunk)
        if held >= BLOCK_BYTES and b"\n" in chunk:
            head, _, rest = chunk.rpartition(b"\n")
            yield b"".join([*parts[:-1], head, b"\n"])
            parts, held = [rest], len(rest)
        elif held > LINE_BYTES:
            raise pa.ArrowInvalid(f"a line is longer than {LINE_BYTES >> 20} MiB")
    last = b"".join(parts)
    if damage is None:
        yield last
        return
    yield last[: last.rfind(b"\n") + 1]  # the line that was cut is no text
    raise damage


def _json_lines(stream: Any, file: SourceFile, text_column: str) -> Iterator[Columns]:
    names = [text_column] if file.lang is not None or text_column == "lang" else [text_column, "lang"]
    options = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema([(name, pa.string()) for name in names]), unexpected_field_behavior="ignore"
    )
    lines, first = 0, True
    for block in _line_blocks(stream):
        if block and not block.isspace():
            if first and block.lstrip().startswith(b"["):
                raise ValueError(f"{file.url}: is one JSON array; write one object a line, as with `jq -c '.[]'`")
            try:
                table = pyarrow.json.read_json(
                    pa.BufferReader(block),
                    read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                    parse_options=options,
                )
                table.validate(full=True)  # Arrow does not ask whether strings are UTF-8
                columns = [(table[text_column], table["lang"] if len(names) > 1 else None)]
            except pa.ArrowException:
                columns = _row_by_row(block, lines, text_column)
            for text, langs in columns:
                if first and text.null_count == len(text):
                    _require_key(block, file, text_column)
                first = False
                yield text, langs
        lines += block.count(b"\n")


def _row_by_row(block: bytes, lines_before: int, text_column: str) -> Iterator[Columns]:
    """The slow way for a block that Arrow refuses: rows up to the damaged one, or all if only surrogates stand alone.

    JSON may write half of a surrogate pair, which is no character; such a half becomes U+FFFD.
    """
    texts: list[str | None] = []
    langs: list[str | None] = []
    damage = None
    for number, line in enumerate(block.split(b"\n"), start=lines_before + 1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            damage = f"line {number}: {error}"
            break
        text = row.get(text_column) if isinstance(row, dict) else row
        if not isinstance(row, dict) or not (text is None or isinstance(text, str)):
            damage = f"line {number}: {text_column!r} is a {type(text).__name__}, not a string"
            break
        lang = row.get("lang")
        texts.append(None if text is None else _LONE_SURROGATE.sub("\ufffd", text))
        langs.append(lang if isinstance(lang, str) else None)
    if texts:
        yield pa.array(texts, pa.string()), pa.array(langs, pa.string())
    if damage is not None:
        raise pa.ArrowInvalid(damage)


def _require_key(block: bytes, file: SourceFile, text_column: str) -> None:
    """Tells a column that is empty from one that is not there."""
    keys: dict[str, None] = {}
    for line in filter(bytes.strip, block.split(b"\n")):
        try:
            row = json.loads(line)
        except ValueError:
            break  # a damaged line, of which the caller speaks
        keys |= dict.fromkeys(row if isinstance(row, dict) else ())
    if text_column not in keys:
        raise _no_column(file, text_column, list(keys))


def _lines(stream: Any, file: SourceFile, text_column: str) -> Iterator[Columns]:
    for block in _line_blocks(stream):
        damage = None
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            damage = error
            text = block[: block.rfind(b"\n", 0, error.start) + 1].decode()
        lines = (line.rstrip("\r") for line in text.split("\n"))
        yield pa.array([line for line in lines if line and not line.isspace()], pa.string()), None
        if damage is not None:
            raise damage


def _csv(stream: Any, file: SourceFile, text_column: str) -> Iterator[Columns]:
    with _open_csv(stream, list(dict.fromkeys((text_column, "lang")))) as reader:
        for number, batch in enumerate(reader):
            text, langs = batch[text_column], batch["lang"]
            if number == 0 and len(text) and text.null_count == len(text):  # only an absent column is null
                raise _no_column(file, text_column, _csv_columns(file))
            yield text, langs


def _open_csv(stream: Any, columns: list[str]) -> pyarrow.csv.CSVStreamingReader:
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns,
            include_missing_columns=True,
            column_types=dict.fromkeys(columns, pa.string()),
        ),
    )


def _csv_columns(file: SourceFile) -> list[str]:
    with open_decompressed(file) as stream, _open_csv(stream, []) as reader:
        return reader.schema.names


def parquet_columns(raw: Any, file: SourceFile, text_column: str, batch_rows: int) -> Iterator[Columns]:
    """Parses Parquet, which needs a file that can be read in any order; only the two columns are read of it."""
    with pq.ParquetFile(raw, buffer_size=RANGE_BYTES, pre_buffer=False) as parquet:
        schema = parquet.schema_arrow
        if text_column not in schema.names:
            raise _no_column(file, text_column, schema.names)
        kind = schema.field(text_column).type
        if not pa.types.is_null(kind) and not _holds_strings(kind):
            raise ValueError(f"{file.url}: column {text_column!r} holds {kind}, not strings")
        columns = [name for name in dict.fromkeys((text_column, "lang")) if name in schema.names]
        for group in range(parquet.num_row_groups):  # each by itself: a damaged one takes no rows of those before it
            for batch in parquet.iter_batches(batch_rows, [group], columns, use_threads=False):
                batch.validate(full=True)
                yield batch[text_column], batch["lang"] if "lang" in columns else None


def _holds_strings(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _no_column(file: SourceFile, text_column: str, there: list[str]) -> ValueError:
    return ValueError(
        f"{file.url}: no column {text_column!r}, it has {', '.join(there) or 'none at all'}; name the right one with "
        "--set data.text_column=NAME"
    )


PARSERS: dict[str, Callable[[Any, SourceFile, str], Iterator[Columns]]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".txt": _lines,
}
