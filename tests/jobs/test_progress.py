"""A job's progress: a bar on a real pseudo-terminal, lines in a log, and what both count."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs.progress
from jobs.progress import RowCounter, Watch, duration

ROOT = Path(__file__).resolve().parents[2]
# 40 rows at the start of a sitting, then 100 rows a second until 240 of 250: ten are dropped.
PROGRAM = """
import sys, time
import jobs.progress
from jobs.progress import Watch

jobs.progress.BAR_EVERY = 0.05
jobs.progress.LINE_EVERY = 0.2
began = time.monotonic()

def count():
    return min(240, 40 + int(100 * max(0.0, time.monotonic() - began - 0.3)))

with Watch(count, 250, "encoded", lambda seconds: None):
    time.sleep(1.5)
    while count() < 240:
        time.sleep(0.05)
    if "broken" in sys.argv:
        raise ValueError("the disk is full")
print("all done")
"""


def on_a_terminal(*arguments, columns=80):
    """What PROGRAM writes to a terminal, in the order of writing, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    os.close(ours)
    code = program.wait(30)
    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", written.decode())
    return code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "\n", without_colours).splitlines()


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": range(rows)}), path)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (12 * 60 + 29, "12 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (48 * 3600, "2 d 0 h"),
        (52 * 3600 + 59 * 60, "2 d 4 h"),
    ],
)
def test_a_duration_is_told_in_the_two_units_that_matter(seconds, words):
    assert duration(seconds) == words


def test_rows_are_counted_in_all_folders_below_and_a_file_in_the_making_counts_later(tmp_path):
    count = RowCounter(tmp_path / "pairs")
    assert count() == 0  # not even a folder
    write_rows(tmp_path / "pairs" / "split=train" / "a.parquet", 5)
    write_rows(tmp_path / "pairs" / "split=test" / "a.parquet", 2)
    half = tmp_path / "pairs" / "split=train" / "b.parquet"
    half.write_bytes(b"PAR1 and so on")
    (tmp_path / "pairs" / "_stats.json").write_text("{}")
    assert count() == 7
    write_rows(half, 4)
    assert count() == 11


def test_a_footer_is_read_once(tmp_path):
    count = RowCounter(tmp_path)
    write_rows(tmp_path / "a.parquet", 5)
    assert count() == 5
    (tmp_path / "a.parquet").write_bytes(b"")
    assert count() == 5


def lines_of(capsys, watch, seconds=0.3):
    with watch:
        time.sleep(seconds)
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(jobs.progress, "LINE_EVERY", 0.05)


class SteadyJob:
    """Rows that come at 10,000 a second of a clock that only counting them moves on."""

    def __init__(self, monkeypatch, before=0):
        self.before, self.counted = before, 0
        monkeypatch.setattr(jobs.progress, "time", SimpleNamespace(monotonic=lambda: self.counted / 10))

    def __call__(self):
        self.counted += 1
        return self.before + 1000 * (self.counted - 1)

    def lines(self, capsys, total):
        """What is printed until the third count or later."""
        with Watch(self, total, "encoded", float):
            while self.counted < 4:
                time.sleep(0.01)
        return capsys.readouterr().out.splitlines()


def test_a_log_gets_lines_with_rows_speed_and_time_left(capsys, often, monkeypatch):
    first, second, *_ = SteadyJob(monkeypatch).lines(capsys, 200_000)
    assert first == "encoded 1,000 of 200,000 texts (10,000/s, 20 s left)"
    assert second == "encoded 2,000 of 200,000 texts (10,000/s, 20 s left)"


def test_a_log_gets_one_line_a_minute():
    assert jobs.progress.LINE_EVERY == 60


def test_before_the_first_rows_no_speed_is_claimed(capsys, often):
    lines = lines_of(capsys, Watch(lambda: 0, 100, "encoded", float))
    assert set(lines) == {"encoded 0 of 100 texts (no new ones yet)"}


def test_without_a_total_no_time_left_is_claimed(capsys, often):
    lines = lines_of(capsys, Watch(iter(range(100)).__next__, None, "found", float))
    assert lines and all(re.fullmatch(r"found \d+ texts \(\d+/s\)", line) for line in lines)


def test_rows_of_earlier_sittings_are_told_and_do_not_count_as_speed(capsys, often, monkeypatch):
    first, second, *_ = SteadyJob(monkeypatch, before=1_000_000).lines(capsys, 2_000_000)
    assert first == "going on: 1,000,000 of 2,000,000 texts are encoded"
    assert second == "encoded 1,001,000 of 2,000,000 texts (10,000/s, 2 min left)"


def test_the_time_of_the_sitting_is_kept_as_it_goes(often):
    ticks = []
    with Watch(lambda: 0, None, "encoded", ticks.append):
        time.sleep(0.3)
    assert ticks == sorted(ticks) and ticks[0] >= 0.05 and 0.1 < ticks[-1] < 5


def test_the_time_of_an_interrupted_sitting_is_kept():
    ticks = []
    with pytest.raises(KeyboardInterrupt), Watch(lambda: 0, None, "encoded", ticks.append):
        time.sleep(0.2)
        raise KeyboardInterrupt
    assert len(ticks) == 1 and ticks[0] >= 0.2


def test_a_failure_ends_the_watch_and_passes(often):
    before = threading.active_count()
    with pytest.raises(OSError, match="full"), Watch(lambda: 0, 1, "encoded", float):
        raise OSError("full")
    assert threading.active_count() == before


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_one_line_that_moves_with_rows_speed_and_time_left(columns):
    code, lines = on_a_terminal(columns=columns)
    assert code == 0
    assert lines[0] == "going on: 40 of 250 texts are encoded"
    bars = [line for line in lines if line.startswith("encoded ")]
    assert all(len(line) <= columns for line in bars)
    assert any("no new ones yet" in line for line in bars)
    moving = [re.search(r"(\d+) of 250 +\S+ +(\d+)/s, (\d+) s left", line) for line in bars]
    counts = [int(found[1]) for found in moving if found]
    assert counts == sorted(counts) and len(set(counts)) > 5
    assert 40 < counts[0] < 240


def test_the_bar_ends_with_what_there_is_and_no_time_left():
    _, lines = on_a_terminal()
    last = [line for line in lines if line.startswith("encoded ")][-1]
    assert re.search(r"240 of 250 +0:00:0\d +\d+/s$", last.rstrip())
    assert [line for line in lines if line.strip()][-1] == "all done"  # on a line of its own


def test_a_bar_that_is_broken_off_leaves_the_terminal_as_it_was():
    code, lines = on_a_terminal("broken")
    assert code == 1
    last = [line for line in lines if line.startswith("encoded ")][-1]
    assert "240 of 250" in last


def test_output_to_a_file_gets_lines_and_no_bar(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    first, *lines, last = done.stdout.splitlines()
    assert (first, last) == ("going on: 40 of 250 texts are encoded", "all done")
    assert len(lines) >= 3
    assert all(
        re.fullmatch(r"encoded \d+ of 250 texts \((no new ones yet|\d+/s, \d+ s left)\)", line) for line in lines
    )
