"""benchmarks/encode.py runs and ends with one JSON line; its figures mean nothing at this size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.records import generate_records

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    "speedup_vs_naive": ("speedup_vs_naive", "job_rows_per_second", "naive_rows_per_second"),
    "efficiency": ("efficiency", "efficiency_float32"),
    "overhead": ("overhead_rows_per_second", "memory_ratio", "peak_mb"),
}


@pytest.mark.parametrize(("measure", "rows"), [("overhead", 4000), ("speedup_vs_naive", 600), ("efficiency", 600)])
def test_each_measure_ends_with_one_json_line_of_its_figures(measure, rows, tmp_path):
    texts = [record.text for record in generate_records("en", 0, 0)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet")
    command = ["benchmarks/encode.py", measure, "--texts", tmp_path / "texts.parquet", "--rows", str(rows)]
    done = subprocess.run(
        [sys.executable, *command, "--repeats", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["benchmark"], result["rows"], result["repeats"]) == ("encode", rows, 1)
    assert all(result[figure] > 0 for figure in FIGURES[measure])
