"""Windows of a dump inverted: their rows read, their texts put into a folder (`embinv.dump_texts`).

Whoever does the windows, this process or many workers (jobs/invert.py), does each alone. Whether vectors are of the
right encoder is not asked here (`embinv.spaces.recognition`).

Shapes: n rows of a window, D embedding.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from embinv.data.dumps.base import Block, BrokenDump, Dump, Part
from embinv.data.dumps.windows import Window, bad_rows, windows
from embinv.dump_texts import Texts
from embinv.inversion import Inversion

WINDOW_ROWS = 2048  # some seconds of a CPU: what a kill takes back, of each inverter
COLUMNS = (
    ("text", pa.string()),
    ("confidence", pa.float32()),
    ("probability", pa.float32()),
    ("cosine", pa.float32()),
    ("encoder_calls", pa.int32()),
)


class InvertVectors(Protocol):
    """What turns vectors into texts."""

    def __call__(self, vectors: np.ndarray) -> Sequence[Inversion]:
        """Returns an inversion of each row [n, D]; all of them can be inverted."""
        ...


def invert_window(texts: Texts, window: Window, block: Block, invert: InvertVectors) -> None:
    """Inverts the rows of a window and writes their texts; null for a vector that cannot be inverted."""
    good = np.setdiff1d(np.arange(len(block)), list(bad_rows(block.vectors)))
    inversions: list[Inversion | None] = [None] * len(block)
    for row, inversion in zip(good.tolist(), invert(block.vectors[good]) if len(good) else [], strict=True):
        inversions[row] = inversion
    found = {
        name: pa.array([None if each is None else _finite(getattr(each, name)) for each in inversions], kind)
        for name, kind in COLUMNS
    }
    metadata = pa.array(_as_json(block.metadata, len(block)), pa.string())
    texts.put(window, pa.table({"id": block.ids, **found, "metadata": metadata}))


def blocks_of(
    address: str, part: Part | None, number: int, wanted: Mapping[int, Window], rows: int
) -> Iterator[tuple[Window, Block]]:
    """Yields some windows of a part with their rows.

    Args:
        address: of the dump.
        part: of it; None where the dump has it no longer.
        number: of the part.
        wanted: its windows to be read, by number.
        rows: of a window.

    Raises:
        BrokenDump: it cannot be read to its end, or is not what was inspected.
    """
    left = len(wanted)
    for window, block in windows(part, number, rows) if part is not None else ():
        if window.number not in wanted:
            continue
        if window != wanted[window.number]:
            break
        yield window, block
        left -= 1
        if not left:
            return
    raise BrokenDump(
        f"--vectors {address}: changed while it was read; what was done is kept: run the same command again, and "
        "what changed is inverted as it is then"
    )


@dataclass(frozen=True)
class Stretch:
    """What is to be done of one part: the part (None where it is gone), its number, and windows of it by theirs."""

    part: Part | None
    number: int
    wanted: Mapping[int, Window]


def stretches(dump: Dump, wanted: Sequence[Window]) -> list[Stretch]:
    """Windows by their part, in order; the dump is opened once for all of them."""
    by_part: dict[int, dict[int, Window]] = {}
    for window in wanted:
        by_part.setdefault(window.part, {})[window.number] = window
    parts = dump.parts()
    return [
        Stretch(parts[number] if number < len(parts) else None, number, own) for number, own in sorted(by_part.items())
    ]


def invert_here(
    dump: Dump,
    wanted: Sequence[Window],
    texts: Texts,
    invert: InvertVectors,
    rows: int,
    on_done: Callable[[Window], None],
) -> None:
    """Does windows in this process, one after another.

    Raises:
        BrokenDump: of `blocks_of`; windows that were done are kept.
    """
    for each in stretches(dump, wanted):
        for window, block in blocks_of(dump.address, each.part, each.number, each.wanted, rows):
            invert_window(texts, window, block, invert)
            on_done(window)


def _finite(value: Any) -> Any:
    """None for the cosine of a text without a direction."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _as_json(metadata: pa.Table | None, rows: int) -> list[str | None]:
    """Each row as a JSON object; what JSON does not know is written as a string."""
    if metadata is None or not metadata.num_columns:
        return [None] * rows
    columns = {name: _no_times(metadata[name]) for name in metadata.column_names}
    return [json.dumps(_plain(row), ensure_ascii=False, default=str) for row in pa.table(columns).to_pylist()]


def _no_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Days and moments as strings: Python's own know no year 10,000."""
    timed = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    return column.cast(pa.string()) if timed else column


def _plain(value: Any) -> Any:
    """Numbers that JSON has not are null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _finite(value)
