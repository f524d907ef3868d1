"""Throughputs read from the records that jobs leave."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from embinv.planning.runs import read_run
from embinv.planning.throughput import UNTOLD

CONFIG = {
    "encoder": {"model": "m", "dim": 8, "prompt": None},
    "data": {"seq_len": 16},
    "encoding": {"device": "cpu", "workers": None},
    "model": {"family": "mdlm", "size": "tiny"},
    "training": {"optimizer": "adamw", "device": "cuda", "workers": 2, "batch_size": None},
}


@pytest.fixture
def pairs(tmp_path):
    stats = {"corpus": {"rows": 1000}, "seconds": 30.0, "start_up_seconds": 10.0, "run": {"recipe": {}}}
    (tmp_path / "_stats.json").write_text(json.dumps(stats))
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


@pytest.fixture
def training(tmp_path):
    record = {
        "config": CONFIG,
        "finished": "steps",
        "steps": 100,
        "seconds": 50.0,
        "samples_per_second": 128.0,
        "seconds_with_start": 75.0,
    }
    (tmp_path / "_run.json").write_text(json.dumps(record))
    lines = [json.dumps({"samples_per_second": rate}) for rate in (100.0, 160.0, 170.0)]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "validations.jsonl").write_text("{}\n" * 4)
    return tmp_path


@pytest.fixture
def inversion(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": 8}))
    for place, rows in enumerate((100, 100, 50)):
        path = tmp_path / f"window-{place}.parquet"
        pq.write_table(pa.table({"id": range(rows)}), path)
        os.utime(path, (1000 + 10 * place, 1000 + 10 * place))
    return tmp_path


def test_pairs_give_a_text_and_the_start(pairs):
    found = read_run(pairs)
    assert (found.stage, found.fixed, found.per_unit) == ("encode", 10.0, 20 / 1000)
    assert (found.gpu, found.devices) == ("cpu", 1)
    assert found.of == {"encoder.model": "m", "encoder.dim": 8, "encoder.prompt": None, "data.seq_len": 16}


def test_pairs_of_gpus_that_nobody_counted_are_refused(pairs):
    for workers in (None, 4):
        own = CONFIG | {"encoding": {"device": "cuda", "workers": workers}}
        (pairs / "settings.yaml").write_text(yaml.safe_dump(own))
        if workers is None:
            with pytest.raises(
                ValueError, match=r"^--from .*: encoding.workers was left open, .*--set encoding.workers="
            ):
                read_run(pairs)
        else:
            assert (read_run(pairs).gpu, read_run(pairs).devices) == ("cuda", 4)


def test_a_training_gives_a_text_a_validation_and_what_lay_around(training):
    found = read_run(training)
    assert (found.stage, found.fixed, found.gpu, found.devices) == ("train", 25.0, "cuda", 2)
    assert found.per_unit == pytest.approx(1 / 160)  # the median of its progress
    assert found.of is not None and found.of["training.batch_size"] == 64  # as it came out, and not null
    assert found.seconds(6400, 4) == pytest.approx(75.0)  # and so it comes to what it took


def test_an_inversion_under_way_is_timed_by_its_windows(inversion):
    found = read_run(inversion)
    assert (found.stage, found.gpu) == ("invert", UNTOLD)
    assert found.per_unit == pytest.approx(20 / 150)  # from the first window that was written to the last


def test_a_finished_inversion_is_timed_by_its_record(inversion):
    (inversion / "_stats.json").write_text(json.dumps({"rows": 250, "seconds": 40.0}))
    assert read_run(inversion).per_unit == pytest.approx(40 / 250)


def test_an_inversion_in_several_sittings_is_refused(inversion):
    (inversion / "_stats.json").write_text(json.dumps({"rows": 250, "seconds": 5.0}))
    with pytest.raises(ValueError, match="in several sittings, of which only the last was timed"):
        read_run(inversion)


def test_what_says_nothing_about_speed_is_refused_in_a_sentence(tmp_path, training):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^--from .*empty: holds no run"):
        read_run(tmp_path / "empty")
    record = json.loads((training / "_run.json").read_text())
    (training / "_run.json").write_text(json.dumps(record | {"finished": None}))
    with pytest.raises(ValueError, match=r"^--from .*: the run has not come to its end"):
        read_run(training)
    (training / "_run.json").write_text("{")
    with pytest.raises(ValueError, match=r"^--from .*: its _run.json does not say how long it took"):
        read_run(training)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no speed"),
        ('{"samples_per_second": null}\n', "holds no speed"),
        ('{"samples_per_sec', "cannot be read"),
        ("{}\n", "cannot be read"),
        ("3\n", "cannot be read"),
    ],
)
def test_a_progress_without_speeds_is_refused_by_flag_and_file(training, content, sentence):
    (training / "progress.jsonl").write_text(content)
    with pytest.raises(ValueError, match=rf"^--from .*: its progress.jsonl {sentence}"):
        read_run(training)


def test_an_inversion_that_has_hardly_begun_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": 8}))
    with pytest.raises(ValueError, match=r"too little of it is done"):
        read_run(tmp_path)
