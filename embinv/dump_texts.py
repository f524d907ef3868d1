"""The texts of a dump on disk: a folder with a file for each window, each whole or not at all.

    OUT/window-PPPPPPPP-NNNNNNNNN.parquet   the rows of a window, in the dump's order
    OUT/run.json            `DumpRun`: what decides which texts come out
    OUT/_stats.json         how many there are, and whether the vectors looked like the encoder's
    OUT/_SUCCESS            all windows are there
    OUT/provenance.json     who made them, where and when

The name of a file and the checksum in it say of which ids and vectors it is, so a run that was killed leaves out what
is there, nothing is done twice and nothing lost. Of a dump whose ids or vectors changed in the meantime the windows
that changed are done anew; a change of its other columns alone is not seen.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from embinv.data.dumps.inspection import Inspection
from embinv.data.dumps.windows import Window
from embinv.data.folders import whole_file
from embinv.data.schema import reasons
from embinv.decoding.options import DecodingOptions
from embinv.provenance.sittings import PROVENANCE_FILE

RUN_FILE, STATS_FILE, SUCCESS_FILE = "run.json", "_stats.json", "_SUCCESS"
WINDOW = "window-"
KEY = b"embinv"  # of a file's metadata


class DumpRun(BaseModel):
    """What decides which texts come out of which dump, beside the hardware."""

    model_config = ConfigDict(extra="forbid")

    dump: str
    settings: dict[str, Any]
    weights: str
    calibration: str | None
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


class Texts:
    """The folder that the texts of one dump lie in, window by window."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def path(self, window: Window) -> Path:
        """Where the texts of a window are written."""
        return self.out / f"{WINDOW}{window.name}.parquet"

    def files(self) -> list[Path]:
        """All of them, in the dump's order."""
        return sorted(self.out.glob(f"{WINDOW}*.parquet"))

    def is_done(self, window: Window) -> bool:
        """Whether they are there, of this very window."""
        return _window_of(self.path(window)) == window

    def todo(self, windows: Iterable[Window]) -> list[Window]:
        """Those of some windows that are not done."""
        return [window for window in windows if not self.is_done(window)]

    def put(self, window: Window, table: pa.Table) -> None:
        """Writes the texts of a window."""
        with whole_file(self.path(window)) as partial:
            own = table.replace_schema_metadata({KEY: json.dumps(window.__dict__)})
            pq.write_table(own, partial, compression="zstd")

    def begin(self, run: DumpRun, inspection: Inspection, overwrite: bool = False) -> tuple[list[Window], int]:
        """Makes the folder ready for a run, or for going on with it.

        Args:
            run: what is to be done.
            inspection: of the dump as it is now.
            overwrite: delete what another run left.

        Returns:
            The windows that are to be done, and how many were deleted since the dump has them not, or no longer.

        Raises:
            ValueError: another run's texts are there, or something else; the message names the first setting that
                differs.
        """
        if overwrite:
            self.delete()
        self._require_same(run)
        own = {window.name: window for window in inspection.windows}
        stale = [file for file in self.files() if own.get(file.stem.removeprefix(WINDOW)) != _window_of(file)]
        wanted = self.todo(inspection.windows)
        if stale or wanted:
            (self.out / SUCCESS_FILE).unlink(missing_ok=True)
        for file in stale:
            file.unlink()
        return wanted, len(stale)

    def finish(self, inspection: Inspection, recognition: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Counts what is there, and marks the folder as whole.

        Args:
            inspection: of the dump.
            recognition: whether the vectors look like the encoder's.
            seconds: that this sitting took.

        Returns:
            What STATS_FILE holds: rows; without_text; expected_nearly_right, texts of which at least 90% are right as
            the calibrated probabilities have it, of calibrated ones; recognition; seconds.

        Raises:
            ValueError: a window is missing, so somebody took it away.
        """
        missing = self.todo(inspection.windows)
        if missing or len(self.files()) != len(inspection.windows):
            raise ValueError(
                f"--out {self.out}: {len(missing):,} of {len(inspection.windows):,} windows are not there any more, or "
                "others are; run the same command again"
            )
        rows = without = calibrated = 0
        expected = 0.0
        for file in self.files():
            table = pq.ParquetFile(file).read(columns=["text", "probability"])
            rows, without = rows + len(table), without + table["text"].null_count
            calibrated += len(table) - table["probability"].null_count
            expected += float(np.nansum(table["probability"].to_numpy()))
        assert rows == inspection.rows, f"{rows} texts of {inspection.rows} vectors"
        stats = {
            "rows": rows,
            "without_text": without,
            "calibrated": calibrated,
            "expected_nearly_right": round(expected, 2),
            "recognition": recognition,
            "seconds": round(seconds, 2),
        }
        with whole_file(self.out / STATS_FILE) as partial:
            partial.write_text(json.dumps(stats, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (self.out / SUCCESS_FILE).touch()
        return stats

    @property
    def is_whole(self) -> bool:
        """Whether `finish` was reached."""
        return (self.out / SUCCESS_FILE).is_file()

    def run(self) -> DumpRun | None:
        """What made them; None where there is no RUN_FILE.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.out / RUN_FILE
        if not path.exists():
            return None
        try:
            return DumpRun.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            why = reasons(error) if isinstance(error, ValidationError) else str(error)
            raise ValueError(f"{path}: cannot be read ({why}); give --overwrite to begin anew") from error

    def stats(self) -> dict[str, Any] | None:
        """What `finish` noted; None where it was not reached."""
        return json.loads((self.out / STATS_FILE).read_text(encoding="utf-8")) if self.is_whole else None

    def delete(self) -> None:
        """Deletes them, and nothing else.

        Raises:
            ValueError: something else is there.
        """
        if not self.out.exists():
            return
        foreign = [path.name for path in self.out.iterdir() if not self.is_ours(path)]
        if foreign:
            raise ValueError(
                f"--overwrite would delete {self.out}, but no inversion made {foreign[0]} in it; move it away"
            )
        (self.out / SUCCESS_FILE).unlink(missing_ok=True)
        for path in sorted(self.out.iterdir(), key=lambda path: path.name == RUN_FILE):  # by which it is known last
            path.unlink()
        self.out.rmdir()

    @staticmethod
    def is_ours(path: Path) -> bool:
        """Whether something in the folder is of an inversion, a file that was being written included."""
        name = path.name
        if name.startswith(".") and name.endswith(".partial"):
            name = name[1:].removesuffix(".partial")
        return name in (RUN_FILE, STATS_FILE, SUCCESS_FILE, PROVENANCE_FILE) or name.startswith(WINDOW)

    def _require_same(self, run: DumpRun) -> None:
        earlier = self.run()
        if earlier is None:
            if self.out.exists() and not all(path.name.endswith(".partial") for path in self.out.iterdir()):
                raise ValueError(f"--out {self.out}: is not empty and holds no texts of ours; choose another folder")
            self.out.mkdir(parents=True, exist_ok=True)
            with whole_file(self.out / RUN_FILE) as partial:
                partial.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
            return
        before, now = earlier.model_dump(mode="json"), run.model_dump(mode="json")
        differing = [name for name in now if before[name] != now[name]]
        if differing:
            name = differing[0]
            raise ValueError(
                f"--out {self.out}: was begun with {name} = {before[name]!r}, not {now[name]!r}; choose another one, "
                "or give --overwrite to begin anew"
            )


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
