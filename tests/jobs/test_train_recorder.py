"""jobs/train_recorder.py: the log line, the rows, the recovered texts, and what a resume takes back."""

import json
import math
import re

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from embinv.config import build_config
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.hashing import HashEncoder
from embinv.inverter import load_inverter
from embinv.models.mdlm import ConditionalMDLM
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.flops import Peak, flops_per_sample
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.tensorboard_tracker import TensorBoardTracker
from embinv.training.validation import Validation
from jobs import train_recorder
from jobs.train_recorder import (
    EXAMPLES_FILE,
    PROGRESS_FILE,
    VALIDATIONS_FILE,
    Recorder,
    flop,
    forget_after,
    read_lines,
    shortened,
)
from tests.fakes import awaken, hash_spec, pairs_of, recipe_for, sentences, word_tokenizer

DIM, LENGTH, PEAK = 16, 8, 2e10


class Run:
    """A run in a folder, as a worker would hold it; `sit` makes a recorder that goes on from a step."""

    def __init__(self, out, tokenizer):
        self.out = out
        out.mkdir()
        overrides = ["data.seq_len=8", "model.size=tiny", "training.batch_size=8", "training.validation_steps=3"]
        tree = {"name": "toy", "encoder": {"model": "m", "dim": DIM}}
        self.config = build_config(tree, [*overrides, "training.learning_rate=0.01", "training.precision=float32"], "")
        self.tokenizer, self.recipe = tokenizer, recipe_for(tokenizer, hash_spec(DIM), LENGTH)
        pairs = pairs_of(sentences(30), tokenizer, HashEncoder(hash_spec(DIM)), LENGTH)
        ends = (tokenizer.eos_id, tokenizer.pad_id)
        self.vocabulary = Vocabulary.of(pairs.token_ids[:20], tokenizer.vocab_size, ends, tokenizer.unknown_id)
        pairs = pairs.renumbered(self.vocabulary)
        self.training, self.validation = pairs.take(np.arange(20)), pairs.take(np.arange(20, 30)[::-1])
        torch.manual_seed(0)
        self.model = awaken(ConditionalMDLM(self.config.model.resolve(self.vocabulary.size, DIM, LENGTH)))
        self.ema = EMA(self.model, 0.9)
        self.engine = LocalEngine(self.model, torch.optim.SGD(self.model.parameters(), lr=1.0))

    def sit(self, step=0):
        return Recorder(
            self.out,
            self.config,
            self.recipe,
            self.tokenizer,
            self.vocabulary,
            self.training,
            self.validation,
            self.ema.model,
            self.engine,
            step,
            {"train_rows": 20, "train_ids": "0000beef"},
        )

    @property
    def log(self):
        return (self.out / "train.log").read_text().splitlines()

    def validate(self, recorder, step, best=True, last=False):
        figures = Validation("nelbo", 4.5, 0.25, 0.125, {0.1: 0.6, 0.5: 0.4}, 10)
        state = RunState(step=step, seconds=2.0 * step, skipped=1)
        state.history.append({"step": step, "seconds": 2.0 * step, **figures.as_row()})
        recorder.validated(Validated(figures, best, last), self.ema, state)


def moment(step=1200, **changes):
    usual = {
        "step": step,
        "share": 0.25,
        "seconds": 600.0,
        "loss": 3.2142,
        "rate": 0.5,
        "samples_per_second": 1234.4,
        "gradient_norm": 0.836,
        "cross_entropy": 2.5,
        "loss_by_part": [math.nan, *(i / 2 for i in range(1, 10))],
        "skipped": 0,
    }
    return Progress(**(usual | changes))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(train_recorder, "device_peak", lambda *arguments: Peak(PEAK, "a yardstick"))
    return Run(tmp_path / "out", word_tokenizer(tmp_path / "words"))


def test_progress_is_one_line_that_tells_everything(run):
    recorder = run.sit()
    recorder.progress(moment())
    share = 1234.4 * flops_per_sample(run.model) / PEAK
    assert run.log == [
        "step  1,200   25%  loss 3.214  |g| 0.84  rate 0.50  1,234 samples/s  9,875 tokens/s  "
        f"MFU {share:.0%}  30 min left"
    ]
    recorder.progress(moment(skipped=3))
    assert f"MFU {share:.0%}  3 skipped  30 min left" in run.log[1]


def test_row_of_progress_carries_every_figure_and_is_json_whatever_was_not_finite(run):
    recorder = run.sit()
    recorder.progress(moment())
    recorder.progress(moment(1300, loss=math.nan, gradient_norm=math.nan, skipped=2))
    lines = (run.out / PROGRESS_FILE).read_text().splitlines()
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert first == {
        "step": 1200,
        "seconds": 600.0,
        "rate": 0.5,
        "skipped": 0,
        "loss": 3.2142,
        "gradient_norm": 0.836,
        "cross_entropy": 2.5,
        "samples_per_second": 1234.4,
        "tokens_per_second": 1234.4 * LENGTH,
        "model_flops_utilisation": pytest.approx(1234.4 * flops_per_sample(run.model) / PEAK),
        "loss_by_time": [None, *(i / 2 for i in range(1, 10))],
    }
    assert (second["loss"], second["gradient_norm"], second["skipped"]) == (None, None, 2)


def test_utilisation_is_a_share_of_what_all_workers_can_do_together(run):
    alone = run.sit()
    run.engine.world = 4
    together = run.sit()
    assert (alone.peak, together.peak) == (PEAK, 4 * PEAK)
    assert alone.yardstick == (
        f"{flop(flops_per_sample(run.model))} a text; MFU is the share of 20 GFLOP/s (a yardstick, 1 worker(s))"
    )
    together.progress(moment())
    [row] = read_lines(run.out / PROGRESS_FILE)
    assert row["model_flops_utilisation"] == pytest.approx(1234.4 * flops_per_sample(run.model) / (4 * PEAK))


def test_tensorboard_gets_every_figure(run):
    recorder = run.sit()
    recorder.progress(moment(10, skipped=1))
    run.validate(recorder, 10, last=True)
    events = EventAccumulator(str(run.out / "tensorboard"))
    events.Reload()
    shown = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    train = (
        "loss",
        "cross_entropy",
        "gradient_norm",
        "samples_per_second",
        "tokens_per_second",
        "model_flops_utilisation",
    )
    validation = ("nelbo", "token_accuracy", "exact_match", "accuracy_at_10%_mask", "accuracy_at_50%_mask")
    assert set(shown) == {
        *(f"train/{name}" for name in (*train, "learning_rate", "skipped")),
        *(f"loss_by_time/{place}" for place in ("0.1-0.2", "0.4-0.5", "0.9-1.0")),
        *(f"loss_by_time/0.{i}-0.{i + 1}" for i in (2, 3, 5, 6, 7, 8)),
        *(f"validation/{name}" for name in validation),
    }
    assert shown["train/learning_rate"] == pytest.approx(0.5 * 0.01)
    assert shown["train/skipped"] == 1
    assert shown["loss_by_time/0.4-0.5"] == 2.0
    assert shown["validation/token_accuracy"] == 0.25
    assert "examples/text_summary" in events.Tags()["tensors"]


def test_the_same_eight_texts_are_recovered_at_each_validation_as_the_checkpoint_recovers_them(run):
    recorder = run.sit()
    for step in (10, 20):
        run.validate(recorder, step)
        rows = [row for row in read_lines(run.out / EXAMPLES_FILE) if row["step"] == step]
        assert [row["id"] for row in rows] == run.validation.ids[:8].tolist()
        assert [row["original"] for row in rows] == run.validation.texts[:8]
        vectors = run.validation.embeddings[:8].astype(np.float32)
        inversions = load_inverter(run.out / "last", precision="float32").invert(vectors, steps=3)
        assert [row["recovered"] for row in rows] == [inversion.text for inversion in inversions]
        assert any(row["recovered"] for row in rows)
        awaken(run.ema.model, seed=step)
    texts = {
        step: [row["recovered"] for row in read_lines(run.out / EXAMPLES_FILE) if row["step"] == step]
        for step in (10, 20)
    }
    assert texts[10] != texts[20]


def test_log_shows_originals_above_what_was_recovered(run):
    recorder = run.sit()
    run.validate(recorder, 10)
    head, *rest = run.log
    assert head == "step     10  validation: 25.0% of tokens from a full mask, 12.5% whole texts, NELBO 4.500  (best)"
    rows = read_lines(run.out / EXAMPLES_FILE)
    expected = [
        line
        for place, row in enumerate(rows, start=1)
        for line in (f"  {place}. was   {row['original']}", f"     read  {row['recovered']}")
    ]
    assert rest == expected


def test_checkpoints_say_how_fast_and_how_well_the_run_went(run):
    recorder = run.sit()
    run.validate(recorder, 10)
    said = load_inverter(run.out / "checkpoint").config.training
    assert (said["steps"], said["samples"], said["seconds"], said["samples_per_second"]) == (10, 80, 20.0, 4.0)
    assert (said["tokens_per_second"], said["skipped_steps"]) == (32.0, 1)
    assert said["model_flops_utilisation"] == pytest.approx(4.0 * flops_per_sample(run.model) / PEAK, abs=1e-4)
    assert (said["validation_texts"], said["validation_token_accuracy"]) == (10, 0.25)


def test_only_the_best_so_far_becomes_the_checkpoint(run):
    recorder = run.sit()
    run.validate(recorder, 10, best=True)
    run.validate(recorder, 20, best=False)
    steps = {name: load_inverter(run.out / name).config.training["steps"] for name in ("checkpoint", "last")}
    assert steps == {"checkpoint": 10, "last": 20}


def test_plot_is_drawn_at_each_validation(run):
    recorder = run.sit()
    run.validate(recorder, 10)  # nothing to show of training yet
    assert (run.out / "training.png").read_bytes().startswith(b"\x89PNG")


def test_resume_takes_back_what_was_noted_of_later_steps(run):
    recorder = run.sit()
    for step in (10, 20, 30):
        recorder.progress(moment(step, loss=float(step)))
        run.validate(recorder, step)
    again = run.sit(step=20)
    for name in (PROGRESS_FILE, VALIDATIONS_FILE, EXAMPLES_FILE):
        assert {row["step"] for row in read_lines(run.out / name)} == {10, 20}
    again.progress(moment(30, loss=-30.0))
    run.validate(again, 30, last=True)
    assert [(row["step"], row["loss"]) for row in read_lines(run.out / PROGRESS_FILE)] == [
        (10, 10),
        (20, 20),
        (30, -30),
    ]
    assert [row["step"] for row in read_lines(run.out / EXAMPLES_FILE)] == [10] * 8 + [20] * 8 + [30] * 8
    events = EventAccumulator(str(run.out / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 10), (20, 20), (30, -30)]
    assert [event.step for event in events.Scalars("validation/nelbo")] == [10, 20, 30]
    page = plugin_event_accumulator.EventAccumulator(str(run.out / "tensorboard"))  # what TensorBoard's page reads
    page.Reload()
    assert [event.step for event in page.Tensors("examples/text_summary")] == [10, 20, 30]


def test_line_that_a_crash_cut_short_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
    forget_after(path, 1)
    assert path.read_text() == '{"step": 1}\n'
    path.write_bytes('{"step": 1, "text": "é"}\n{"step": 2, "text": "é'.encode()[:-1])  # cut within a letter
    forget_after(path, 5)
    assert read_lines(path) == [{"step": 1, "text": "é"}]


def test_lines_that_a_power_cut_left_as_zeros_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    zeros = "\0" * 40
    path.write_text('{"step": 1}\n' + zeros + '\n{"step": 2, "lo\n{"step": 3}\n' + zeros)
    assert read_lines(path) == [{"step": 1}, {"step": 3}]
    forget_after(path, 3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_new_run_starts_with_empty_files(run):
    run.sit()
    for name in (PROGRESS_FILE, VALIDATIONS_FILE, EXAMPLES_FILE):
        assert (run.out / name).read_text() == ""


def test_trackers_hear_how_a_run_ended(run, monkeypatch):
    closed = []
    for finished in (True, False):
        recorder = run.sit()
        monkeypatch.setattr(recorder.trackers, "close", closed.append)
        run.validate(recorder, 10, last=True)
        recorder.close(finished)
    assert closed == [True, False]


def test_tracker_that_fails_is_told_in_the_log(run, monkeypatch):
    recorder = run.sit()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoardTracker, "scalars", full)
    recorder.progress(moment())
    recorder.progress(moment(1300))
    [line] = [line for line in run.log if "tracker" in line]
    assert line.startswith("training.trackers: tensorboard failed ([Errno 28] No space left on device); ")
    assert len(read_lines(run.out / PROGRESS_FILE)) == 2


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (5.79e7, "57.9 MFLOP"),
        (1.5e3, "0.0015 MFLOP"),
        (1.01e11, "101 GFLOP"),
        (9.895e14, "990 TFLOP"),
        (4e15, "4 PFLOP"),
    ],
)
def test_operations_are_told_in_a_unit_that_reads_well(count, said):
    assert flop(count) == said


def test_long_or_broken_text_takes_one_line_of_the_log():
    assert shortened("a\nb  c") == "a b c"
    assert len(shortened("x" * 1000)) == 150 and shortened("x" * 1000).endswith("x…")
    assert not re.search(r"\n", shortened("line\nline"))
