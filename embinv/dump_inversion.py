"""A dump of vectors to texts: windows inverted, each written as a file of its own, whole or not at all.

    OUT/window-PPPPP-NNNNNNN.parquet    the rows of a window, in the dump's order
    OUT/run.json                        `DumpRun`: what decides which texts come out

The name of a file and the checksum in it say of which rows it is, so a run that was killed leaves out what is there,
nothing is done twice and nothing lost, whoever does the windows: this process, or many workers (jobs/invert.py). Of a
dump that changed in the meantime, the windows that changed are done anew, so that what is there is always of the dump
as it is. Whether vectors are of the right encoder is not asked here (`embinv.spaces.recognition`).

Shapes: n rows of a window, D embedding.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from embinv.data.dumps.base import Block, BrokenDump, Dump
from embinv.data.dumps.inspection import Inspection
from embinv.data.dumps.windows import Window, bad_rows, windows
from embinv.data.folders import whole_file
from embinv.data.schema import reasons
from embinv.decoding.options import DecodingOptions
from embinv.inversion import Inversion

WINDOW_ROWS = 2048  # some seconds of a CPU: what a kill takes back, of each inverter
RUN_FILE = "run.json"
KEY = b"embinv"  # of a file's metadata
COLUMNS = (
    ("text", pa.string()),
    ("confidence", pa.float32()),
    ("probability", pa.float32()),
    ("cosine", pa.float32()),
    ("encoder_calls", pa.int32()),
    ("metadata", pa.string()),
)


class DumpRun(BaseModel):
    """What decides which texts come out of which dump, beside the hardware."""

    model_config = ConfigDict(extra="forbid")

    dump: str
    settings: dict[str, Any]
    weights: str
    strategy: str
    steps: int
    options: DecodingOptions
    seed: int
    precision: str
    cosine: bool
    refine_steps: int
    refine_beam: int
    corrector: str | None
    window_rows: int

    def require_same(self, out: Path) -> None:
        """Refuses to mix the texts of two runs in one folder; notes this run in a new one.

        Raises:
            ValueError: another run's texts are there, or something else; the message names the first setting that
                differs.
        """
        path = out / RUN_FILE
        if not path.exists():
            if out.exists() and any(out.iterdir()):
                raise ValueError(f"--out {out}: is not empty and holds no texts of ours; choose another folder")
            out.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as partial:
                partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            return
        try:
            earlier = DumpRun.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            why = reasons(error) if isinstance(error, ValidationError) else str(error)
            raise ValueError(f"{path}: cannot be read ({why}); give --overwrite to begin anew") from error
        before, now = earlier.model_dump(mode="json"), self.model_dump(mode="json")
        differing = [name for name in now if before[name] != now[name]]
        if differing:
            name = differing[0]
            raise ValueError(
                f"--out {out}: was begun with {name} = {before[name]!r}, not {now[name]!r}; choose another one, "
                "or give --overwrite to begin anew"
            )


class InvertVectors(Protocol):
    """What turns vectors into texts."""

    def __call__(self, vectors: np.ndarray) -> Sequence[Inversion]:
        """Returns an inversion of each row [n, D]; all of them can be inverted."""
        ...


@dataclass(frozen=True)
class Written:
    """A window that was done.

    Attributes:
        window: which.
        rows: in its file.
        bad: of them without a text.
    """

    window: Window
    rows: int
    bad: int


class Texts:
    """The folder that the texts of one dump lie in, window by window."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def path(self, window: Window) -> Path:
        """Where the texts of a window are written."""
        return self.out / f"window-{window.name}.parquet"

    def files(self) -> list[Path]:
        """All of them, in the dump's order."""
        return sorted(self.out.glob("window-*.parquet"))

    def is_done(self, window: Window) -> bool:
        """Whether they are there, of this very window."""
        return _window_of(self.path(window)) == window

    def keep_only(self, wanted: Iterable[Window]) -> int:
        """Deletes texts of windows that the dump has not, or no longer; returns how many files."""
        own = {window.name: window for window in wanted}
        stale = [file for file in self.files() if own.get(file.stem.removeprefix("window-")) != _window_of(file)]
        for file in stale:
            file.unlink()
        return len(stale)

    def write(self, window: Window, block: Block, invert: InvertVectors) -> Written:
        """Inverts the rows of a window and writes them.

        Rows that cannot be inverted get no text: null.
        """
        bad = bad_rows(block.vectors)
        good = np.setdiff1d(np.arange(len(block)), list(bad))
        inversions: list[Inversion | None] = [None] * len(block)
        for row, inversion in zip(good.tolist(), invert(block.vectors[good]) if len(good) else [], strict=True):
            inversions[row] = inversion
        with whole_file(self.path(window)) as partial:
            pq.write_table(_table(window, block, inversions), partial, compression="zstd")
        return Written(window, len(block), len(bad))


def todo(inspection: Inspection, texts: Texts) -> list[Window]:
    """The windows that are not done."""
    return [window for window in inspection.windows if not texts.is_done(window)]


def blocks_of(dump: Dump, part: int, wanted: dict[int, Window], rows: int) -> Iterator[tuple[Window, Block]]:
    """Yields some windows of a part with their rows.

    Args:
        dump: as it was inspected.
        part: number of it.
        wanted: its windows to be read, by number.
        rows: of a window.

    Raises:
        BrokenDump: it cannot be read to its end, or is not what was inspected.
    """
    left = len(wanted)
    if not left:
        return
    parts = dump.parts()
    for window, block in windows(parts[part], part, rows) if part < len(parts) else ():
        if window.number not in wanted:
            continue
        if window != wanted[window.number]:
            break
        yield window, block
        left -= 1
        if not left:
            return
    raise BrokenDump(
        f"--vectors {dump.address}: changed while it was read; what was done is kept: run the same command again, and "
        "what changed is inverted as it is then"
    )


def invert_here(
    dump: Dump,
    inspection: Inspection,
    texts: Texts,
    invert: InvertVectors,
    rows: int,
    on_done: Callable[[Written], None],
) -> None:
    """Does what is to be done in this process.

    Raises:
        BrokenDump: of `blocks_of`; windows that were done are kept.
    """
    waiting = todo(inspection, texts)
    for part in sorted({window.part for window in waiting}):
        wanted = {window.number: window for window in waiting if window.part == part}
        for window, block in blocks_of(dump, part, wanted, rows):
            on_done(texts.write(window, block, invert))


def join(texts: Texts, path: Path) -> int:
    """Writes all windows as one Parquet file, whole or not at all, a window at a time; returns its rows."""
    rows = 0
    with whole_file(path) as partial:
        writer: pq.ParquetWriter | None = None
        try:
            for file in texts.files():
                table = pq.ParquetFile(file).read().replace_schema_metadata(None)
                writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
                writer.write_table(table)
                rows += len(table)
        finally:
            if writer is not None:
                writer.close()
    return rows


def _window_of(file: Path) -> Window | None:
    """Which window's texts are in a file; None where there is none, or not a whole one."""
    try:
        return Window(**json.loads((pq.read_schema(file).metadata or {})[KEY]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _table(window: Window, block: Block, inversions: Sequence[Inversion | None]) -> pa.Table:
    found = {
        name: pa.array([None if each is None else _finite(getattr(each, name)) for each in inversions], kind)
        for name, kind in COLUMNS[:-1]
    }
    table = pa.table(
        {"id": block.ids, **found, "metadata": pa.array(_as_json(block.metadata, len(block)), pa.string())}
    )
    return table.replace_schema_metadata({KEY: json.dumps(window.__dict__)})


def _finite(value: Any) -> Any:
    """None for the cosine of a text without a direction."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _as_json(metadata: pa.Table | None, rows: int) -> list[str | None]:
    """Each row as a JSON object; what JSON does not know is written as a string."""
    if metadata is None or not metadata.num_columns:
        return [None] * rows
    return [json.dumps(_plain(row), ensure_ascii=False, default=str) for row in metadata.to_pylist()]


def _plain(value: Any) -> Any:
    """Numbers that JSON has not are null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _finite(value)
