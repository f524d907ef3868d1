"""Debian's `hey` as load generator: as many clients as asked, each sending the same body again and again.

It sees neither what an answer says nor requests that got none; what depends on those is benchmarks/serve_load.py's.
"""

import csv
import io
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass

TIMEOUT_S = 90
COLUMNS = ("response-time", "status-code", "offset")


@dataclass(frozen=True)
class Row:
    """One answered request: seconds from the start of the run until it was sent, seconds it took, its status."""

    sent: float
    took: float
    status: int


def parse_hey(text: str) -> list[Row]:
    """Reads what `hey -o csv` prints, in the order sent.

    Raises:
        ValueError: it is not that; the message quotes its beginning.
    """
    reader = csv.DictReader(io.StringIO(text))
    if not set(COLUMNS) <= set(reader.fieldnames or ()):
        raise ValueError(f"hey printed no table with the columns {', '.join(COLUMNS)} but: {text[:200]!r}")
    rows = [Row(float(row["offset"]), float(row["response-time"]), int(row["status-code"])) for row in reader]
    return sorted(rows, key=_sent)


def _sent(row: Row) -> float:
    return row.sent


def rate_of(rows: list[Row], clients: int) -> float:
    """Answers a second while all clients wait for one, by Little's law: clients over the mean time of an answer.

    The first answer of each client is left out, since they come one after another. Answers of one batch come together,
    so that a count between two moments would be a batch too many or too few; this is neither. 0 if nobody was answered
    twice; only for runs without refusals.
    """
    took = [row.took for row in rows[clients:]]
    return clients / (sum(took) / len(took)) if took else 0.0


def run_hey(url: str, body: str, clients: int, seconds: float) -> list[Row]:
    """Loads `url` with POST requests.

    Raises:
        ValueError: hey is not installed.
        RuntimeError: it failed.
    """
    if shutil.which("hey") is None:
        raise ValueError("this measure needs hey; on Debian and Ubuntu: apt-get install hey")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(body)
        file.flush()
        command = ["hey", "-o", "csv", "-z", f"{seconds}s", "-c", str(clients), "-t", str(TIMEOUT_S)]
        command += ["-m", "POST", "-T", "application/json", "-D", file.name, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + TIMEOUT_S + 30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"hey ended with {done.returncode}: {done.stderr[-400:]}")
    return parse_hey(done.stdout)


def statuses_of(rows: list[Row]) -> dict[str, int]:
    """Answers by status."""
    return {str(status): count for status, count in sorted(Counter(row.status for row in rows).items())}
