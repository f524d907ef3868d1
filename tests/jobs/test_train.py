"""jobs/train.py: what a run leaves behind, and that it computes what plain PyTorch does."""

import json

import numpy as np
import pytest
import torch

from embinv.checkpoint import load_checkpoint
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe
from embinv.data.sole_writer import sole_writer
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.inverter import load_inverter
from embinv.models.mdlm import ConditionalMDLM
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.loop import RunState, run
from embinv.training.optimizer import build_optimizer
from embinv.training.step import TokenIds
from jobs.train import train
from jobs.train_identity import identity_of
from tests.jobs.training_runs import progress_of, record_of, weights_of
from tests.provenance_checks import require_provenance


class Plain:
    """A run in one process without Ray and DeepSpeed: what theirs must come to.

    Attributes:
        start: weights at the start.
        end: EMA weights at the end, once `run` was called.
    """

    def __init__(self, config, pairs):
        self.settings, self.recipe = config.training, read_recipe(pairs)
        training = read_pairs(pairs, "train")
        ends, unknown = (self.recipe.eos_id, self.recipe.pad_id), TextTokenizer(config.tokenizer).unknown_id
        vocabulary = Vocabulary.of(training.token_ids, self.recipe.vocab_size, ends, unknown)
        validation = read_pairs(pairs, "validation").sample(self.settings.validation_rows, self.settings.seed)
        self.training, self.validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)
        torch.manual_seed(self.settings.seed)
        shape = config.model.resolve(vocabulary.size, self.recipe.encoder.dim, self.recipe.seq_len)
        self.model = ConditionalMDLM(shape)
        self.ids = TokenIds(shape.mask_id, *vocabulary.ends(*ends))
        self.start = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def run(self):
        ema = EMA(self.model, self.settings.ema_decay, self.settings.ema_share)
        optimizer = build_optimizer(self.model, self.settings)
        engine = LocalEngine(
            self.model, optimizer, self.settings.gradient_accumulation, self.settings.gradient_clipping
        )
        for _ in run(engine, ema, self.training, self.validation, self.ids, self.settings, RunState()):
            pass
        self.end = dict(ema.model.named_parameters())
        return self


def assert_same_way(found, expected, start, tolerance):
    """Every weight went from its start to the same place, up to a share of the way that it went."""
    assert found.keys() == expected.keys() == start.keys()
    for name, weight in expected.items():
        way = float((weight - start[name]).norm())
        assert way > 0, f"{name} was not trained"
        assert float((found[name] - weight).norm()) <= tolerance * way, name


def test_a_run_makes_the_steps_it_was_told_to(tiny_run):
    out, record = tiny_run
    assert record["steps"] == 20
    assert record == json.loads((out / "_run.json").read_text())
    assert record["finished"] == "steps" and record["skipped"] == 0
    assert record["samples_per_second"] == pytest.approx(20 * 32 / record["seconds"], rel=0.05)
    assert progress_of(out)[-1]["step"] == 20
    assert load_checkpoint(out / "last").config.training["steps"] == 20


def test_a_run_and_its_checkpoints_say_how_they_were_made(tiny_run):
    out, record = tiny_run
    made = require_provenance(out, "jobs/train.py")
    assert made["settings"] == record["config"] and made["seeds"]["training.seed"] == 0
    for name in ("checkpoint", "last"):
        inside = require_provenance(out / name, "jobs/train.py", ended=False)  # saved before the run's end
        assert {**inside, "ended": made["ended"]} == made


def test_a_run_leaves_what_the_readme_promises(tiny_run):
    out, record = tiny_run
    names = {path.name for path in out.iterdir()}
    expected = {
        "checkpoint",
        "last",
        "training.png",
        "tensorboard",
        "train.log",
        "progress.jsonl",
        "validations.jsonl",
        "examples.jsonl",
    }
    assert names == expected | {"settings.yaml", "provenance.json", "_run.json", f"state-{record['fingerprint']}"}
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert any(path.stat().st_size > 200 for path in (out / "tensorboard").glob("events.out.tfevents.*"))
    log = (out / "train.log").read_text()
    assert "texts to learn from" in log and "samples/s" in log and "validation:" in log
    assert "max_steps: 20" in (out / "settings.yaml").read_text()


def test_tensorboard_holds_loss_and_validation(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, record = tiny_run
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/samples_per_second", "validation/nelbo", "validation/token_accuracy"} <= tags
    assert [event.step for event in events.Scalars("validation/nelbo")] == [10, 20]
    assert events.Scalars("validation/nelbo")[-1].value == pytest.approx(record["last"]["nelbo"], rel=1e-5)


def test_a_checkpoint_loads_and_inverts(tiny_run, tiny_pairs):
    out, _ = tiny_run
    test = read_pairs(tiny_pairs, "test")
    for name in ("checkpoint", "last"):
        inversions = load_inverter(out / name).invert(test.embeddings[:3].astype(np.float32), steps=2)
        assert len(inversions) == 3
        assert all(0 < inversion.confidence <= 1 for inversion in inversions)


def test_a_checkpoint_says_which_texts_it_learnt_from_and_its_card_too(tiny_run, tiny_pairs):
    out, _ = tiny_run
    pairs = identity_of(tiny_pairs)
    for name in ("checkpoint", "last"):
        said = load_inverter(out / name).config.training
        assert (said["train_rows"], said["train_ids"]) == (pairs["train.rows"], pairs["train.ids"])
        assert f"| train_ids | {pairs['train.ids']} |" in (out / name / "README.md").read_text()


def test_deepspeed_computes_what_plain_pytorch_does(tiny_run, tiny, tiny_pairs):
    out, _ = tiny_run
    plain = Plain(tiny(), tiny_pairs).run()
    assert_same_way(weights_of(out / "last"), plain.end, plain.start, 0.05)  # Muon's iteration is in bfloat16


def test_a_finished_run_is_not_done_again(tiny_run, tiny, tiny_pairs, capsys):
    out, record = tiny_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train(tiny(), tiny_pairs, out, resume=True) == record
    assert "all done before, 20 steps" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_going_on_must_be_asked_for(tiny_run, tiny, tiny_pairs):
    out, _ = tiny_run
    with pytest.raises(ValueError, match="add --resume"):
        train(tiny(), tiny_pairs, out, resume=False)


def test_a_folder_in_which_another_job_is_at_work_is_left_to_it(tiny, tiny_pairs, tmp_path):
    out = tmp_path / "run"
    with sole_writer(out), pytest.raises(ValueError, match="another job is writing there"):
        train(tiny(), tiny_pairs, out, resume=False)
    assert not out.exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_starts(tiny, tiny_pairs, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"pip install"):
        train(tiny("training.trackers=[mlflow]"), tiny_pairs, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_other_settings_are_refused_by_name(tiny_run, tiny, tiny_pairs):
    out, _ = tiny_run
    with pytest.raises(ValueError, match=r"training\.max_steps: 20 != 30") as caught:
        train(tiny("training.max_steps=30"), tiny_pairs, out, resume=True)
    assert "choose another folder" in str(caught.value)


def test_settings_of_other_jobs_may_change(tiny_run, tiny, tiny_pairs):
    out, record = tiny_run
    assert train(tiny("evaluation.rows=5", "encoding.workers=2"), tiny_pairs, out, resume=True) == record


def test_pairs_of_another_recipe_are_refused_by_name(ray_cluster, tiny, tiny_pairs, tmp_path):
    with pytest.raises(ValueError, match="seq_len: 16 != 24"):
        train(tiny("data.seq_len=24"), tiny_pairs, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pairs_is_refused(ray_cluster, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"jobs/encode\.py"):
        train(tiny(), tmp_path, tmp_path / "out", resume=False)


def test_a_checkpoint_of_another_origin_is_not_overwritten(ray_cluster, tiny, tiny_pairs, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match="another origin"):
        train(tiny(), tiny_pairs, tmp_path, resume=True)


# --- several workers; in CI, test_deepspeed_engine.py and test_train_faults.py have some


TWO_WORKERS = ("training.workers=2", "training.optimizer=adamw", "training.max_steps=12", "training.validations=1")


@pytest.fixture(scope="module")
def unpartitioned(ray_cluster, tiny, tiny_pairs, tmp_path_factory):
    """Two workers that each hold everything: what partitioning must not change."""
    out = tmp_path_factory.mktemp("zero") / "out"
    record = train(tiny(*TWO_WORKERS), tiny_pairs, out, resume=False)
    assert record["steps"] == 12
    return out


@pytest.mark.nightly
def test_a_run_that_was_killed_after_its_last_step_is_only_recorded(unpartitioned, tiny, tiny_pairs):
    record = json.loads((unpartitioned / "_run.json").read_text())
    before = weights_of(unpartitioned / "last")
    (unpartitioned / "_run.json").write_text(json.dumps(record | {"finished": None, "steps": 0}))
    again = train(tiny(*TWO_WORKERS), tiny_pairs, unpartitioned, resume=True)
    assert again["finished"] and again["steps"] == record["steps"] == 12
    assert again["last"] == record["last"]
    assert all(torch.equal(weights_of(unpartitioned / "last")[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.nightly
def test_partitioning_changes_nothing(unpartitioned, tiny, tiny_pairs, tmp_path, stage):
    record = train(tiny(*TWO_WORKERS, f"training.zero_stage={stage}"), tiny_pairs, tmp_path, resume=False)
    assert record["last"]["nelbo"] == pytest.approx(record_of(unpartitioned)["last"]["nelbo"], rel=1e-3)
    start = Plain(tiny(*TWO_WORKERS), tiny_pairs).start
    assert_same_way(weights_of(tmp_path / "last"), weights_of(unpartitioned / "last"), start, 0.01)


@pytest.mark.nightly
def test_bfloat16_with_zero_2_stays_near_float32(unpartitioned, tiny, tiny_pairs, tmp_path):
    settings = ("training.zero_stage=2", "training.precision=bfloat16")
    record = train(tiny(*TWO_WORKERS, *settings), tiny_pairs, tmp_path, resume=False)
    assert record["steps"] == 12
    assert record["last"]["nelbo"] == pytest.approx(record_of(unpartitioned)["last"]["nelbo"], rel=0.02)
    expected, found = weights_of(unpartitioned / "last"), weights_of(tmp_path / "last")
    assert {name: (w.shape, w.dtype) for name, w in found.items()} == {
        name: (w.shape, torch.float32) for name, w in expected.items()
    }
    load_inverter(tmp_path / "last")


@pytest.mark.nightly
def test_accumulated_gradients_are_those_of_plain_pytorch(ray_cluster, tiny, tiny_pairs, tmp_path):
    settings = ("training.gradient_accumulation=4", "training.max_steps=8", "training.validations=1")
    config = tiny(*settings, "training.optimizer=adamw")
    record = train(config, tiny_pairs, tmp_path, resume=False)
    assert record["steps"] == 8
    plain = Plain(config, tiny_pairs).run()
    assert_same_way(weights_of(tmp_path / "last"), plain.end, plain.start, 0.01)


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_a_run_on_a_gpu_finds_its_batch_and_compiles(ray_cluster, tiny, tiny_pairs, tmp_path):
    found = ("training.batch_size=null", "training.compile=null", "training.precision=auto")
    record = train(tiny("training.device=cuda", *found), tiny_pairs, tmp_path / "out", resume=False)
    assert record["steps"] == 20 and record["finished"] == "steps" and record["skipped"] == 0
    load_inverter(tmp_path / "out" / "last")
