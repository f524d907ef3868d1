"""Quarantine: what a job could not read or encode, with the reason, in `_rejected/` of its output.

Files are named and never moved: they belong to the user. A job goes on without them, and fails at its end if they are
more than data.max_rejected of its input; run again after they were mended, it does them alone.
"""

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jobs.arguments import write_json

FOLDER = "_rejected"


@dataclass(frozen=True)
class Rejects:
    """What lies in a quarantine.

    Attributes:
        files: input file -> why it could not be read.
        rows: text id -> why its text was left out.
    """

    files: dict[str, str]
    rows: dict[int, str]

    def reasons(self) -> dict[str, int]:
        """Rows left out, by reason; reasons that differ in a long number, or far behind, are one."""
        kinds = (re.sub(r"(?<=\D)\d{2,}", "#", reason)[:120] for reason in self.rows.values())
        return dict(Counter(kinds).most_common())

    def without(self, ids: np.ndarray) -> "Rejects":
        """The same without rows of these ids, which a second try encoded."""
        there = np.isin(np.fromiter(self.rows, dtype=np.int64, count=len(self.rows)), ids)
        left = {row: reason for (row, reason), done in zip(self.rows.items(), there, strict=True) if not done}
        return Rejects(self.files, left)


def clear(out: Path) -> None:
    """Forgets what an earlier sitting rejected: it is tried again."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def reject_file(out: Path, file: str, reason: str) -> None:
    """Notes an input file that cannot be read; the same file twice is one note."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    name = f"{Path(file).name}-{hashlib.blake2b(file.encode(), digest_size=4).hexdigest()}.json"
    write_json(out / FOLDER / name, {"file": file, "reason": " ".join(reason.split())})


def refuse_file(file: str, reason: str) -> None:
    """For an input that another job made, of which nothing may be missing.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{file}: cannot be read ({' '.join(reason.split())}); put it back, or make its folder anew")


@dataclass(frozen=True)
class RejectedRow:
    """One text that was read and cannot be encoded."""

    id: int
    text: str
    reason: str


def reject_rows(out: Path, rows: list[RejectedRow]) -> None:
    """Notes texts of one batch; the same batch twice is one note."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(json.dumps([row.id for row in rows]).encode(), digest_size=8).hexdigest()
    partial = out / FOLDER / f".rows-{digest}.partial"
    lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(out / FOLDER / f"rows-{digest}.jsonl")


def read_rejects(out: Path) -> Rejects:
    """What was rejected since `clear`."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / FOLDER).glob("*.json"))]
    lines = [line for path in sorted((out / FOLDER).glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    rows = [RejectedRow(**json.loads(line)) for line in lines]
    return Rejects({note["file"]: note["reason"] for note in notes}, {row.id: row.reason for row in rows})


def require_few(rejects: Rejects, files: int, max_rejected: float) -> None:
    """Ends a job of whose input files too many could not be read.

    Raises:
        ValueError: more than `max_rejected` of them; each is named with its reason.
    """
    if len(rejects.files) > max_rejected * files:
        raise ValueError(
            f"{len(rejects.files)} of {files} input files cannot be read, more than data.max_rejected "
            f"({max_rejected:g}) allows: "
            + "; ".join(f"{file} ({reason})" for file, reason in rejects.files.items())
            + ". Mend them and run the same command again, or raise data.max_rejected"
        )
