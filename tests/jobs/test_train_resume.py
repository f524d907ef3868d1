"""Going on with a run: which save is taken, that nothing is lost by it, and what may change between two sittings."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from embinv.checkpoint import load_checkpoint
from embinv.data.pairs import read_pairs
from embinv.training.engine import LocalEngine
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds
from embinv.training.validation import validate
from jobs.train import train
from jobs.train_identity import FREE, run_fingerprint
from jobs.train_manifest import fault_of, write_manifest
from jobs.train_state import COMPLETE, SAVING, complete, hand_in, newest_whole, save_name
from tests.jobs.training_runs import (
    flip_bit,
    killer,
    leaves_of,
    log_of,
    record_of,
    require_same_state,
    saves_of,
    shelf,
    states_of,
    validations_of,
    wind_back,
)

# --- which save is taken


def save(storage, step, world=2, finished=True):
    """What two workers leave at a step, in small."""
    folder = storage / save_name(step)
    for rank in range(world):
        share = storage / f"share-{rank}"
        (share / "state").mkdir(parents=True)
        (share / "state" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(bytes(range(256)) * 8)
        if rank == 0:
            (share / "run.json").write_text(json.dumps({"step": step, "batch_size": 48, "precision": "float32"}))
        write_manifest(share, rank, world, step)
        shutil.copytree(share, folder, dirs_exist_ok=True)
        shutil.rmtree(share)
    if finished:
        (folder / COMPLETE).touch()
    return folder


def test_a_save_is_found_with_what_a_resume_must_know(tmp_path):
    folder = save(tmp_path, 120)
    saved, told = newest_whole(tmp_path)
    assert saved == (folder, 120, 2, 48, "float32", True)
    assert told == []


def test_where_nothing_was_saved_a_run_begins(tmp_path):
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "absent") == (None, [])


def test_the_newest_is_taken_by_step_and_not_by_when_it_was_written(tmp_path):
    newer = save(tmp_path, 1000)
    save(tmp_path, 999)
    assert newest_whole(tmp_path)[0].folder == newer


HARM = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "a flipped bit": flip_bit,
}
FILES = [
    "run.json",
    "state/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "state/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "manifest-0.json",
    "manifest-1.json",
]


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_save_is_set_aside_by_name_and_the_one_before_it_taken(tmp_path, name, harm):
    before, newest = save(tmp_path, 10), save(tmp_path, 20)
    HARM[harm](newest / name)
    saved, [sentence] = newest_whole(tmp_path)
    assert saved.folder == before
    assert sentence.startswith(f"{newest.name}: damaged on disk ({name} ")
    assert sentence.endswith(f"going on from the save before it, {before.name}")
    assert not newest.exists() and (tmp_path / f"damaged-{newest.name}").is_dir()
    assert newest_whole(tmp_path) == (saved, [])


def test_no_flipped_bit_goes_unnoticed_in_any_file(tmp_path):
    folder = save(tmp_path, 10)
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE]:
        content = path.read_bytes()
        for place in range(0, len(content), 7):
            for bit in (place % 8, 1):  # a "2" becomes a "0" by bit 1, for instance in a manifest's world
                path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
                assert fault_of(folder) is not None, (path.name, place, bit)
        path.write_bytes(content)
    assert fault_of(folder) is None


def test_saves_of_two_steps_are_not_mixed(tmp_path):
    first, second = save(tmp_path, 10), save(tmp_path, 20)
    shutil.copy(first / "manifest-1.json", second)
    assert fault_of(second) == "manifest-1.json is of another step"


def test_a_save_that_was_being_written_is_deleted(tmp_path):
    before, newest = save(tmp_path, 10), save(tmp_path, 20, finished=False)
    (newest / "manifest-1.json").unlink()
    saved, [sentence] = newest_whole(tmp_path)
    assert saved.folder == before and not newest.exists()
    assert sentence == f"{newest.name}: was being written when the run stopped (manifest-1.json is missing); not used"


def test_what_a_worker_was_writing_is_swept_away(tmp_path):
    folder, share = save(tmp_path, 10), tmp_path / f"{SAVING}abc"
    share.mkdir()
    (share / "weights.pt").write_bytes(bytes(1000))
    assert newest_whole(tmp_path)[0].folder == folder
    assert list(tmp_path.iterdir()) == [folder]


def test_shares_of_all_workers_become_one_save(tmp_path):
    for rank in range(2):
        share = tmp_path / f"{SAVING}{rank}"
        (share / "state").mkdir(parents=True)
        (share / "state" / f"part-{rank}").write_text(f"of {rank}")
        write_manifest(share, rank, 2, 10)
        hand_in(share, tmp_path, "step-10")
    assert fault_of(tmp_path / "step-10") is None
    files = {path.name for path in (tmp_path / "step-10").rglob("*") if path.is_file()}
    assert files == {"part-0", "part-1", "manifest-0.json", "manifest-1.json"}
    assert not [path for path in tmp_path.glob(f"{SAVING}*/**/*") if path.is_file()]


def test_a_whole_save_counts_even_if_nobody_lived_to_say_so(tmp_path):
    newest = save(tmp_path, 20, finished=False)
    assert newest_whole(tmp_path)[0].folder == newest


def test_a_first_save_that_was_being_written_means_the_beginning(tmp_path):
    newest = save(tmp_path, 20, finished=False)
    (newest / "run.json").unlink()
    saved, [sentence] = newest_whole(tmp_path)
    assert saved is None and newest.name in sentence


def test_if_all_saves_are_damaged_nothing_begins_anew_in_silence(tmp_path):
    folders = [save(tmp_path, step) for step in (10, 20)]
    for folder in folders:
        (folder / "run.json").unlink()
    for _ in range(2):  # the second attempt says the same
        with pytest.raises(ValueError, match="no save of this run is whole any more") as caught:
            newest_whole(tmp_path)
        assert all(f"{folder.name}: run.json is missing" in str(caught.value) for folder in folders)
        assert "choose another --out" in str(caught.value)


def test_the_two_newest_saves_are_kept(tmp_path):
    folders = [save(tmp_path, step, finished=False) for step in (10, 20, 30)]
    for folder in folders:
        complete(tmp_path, folder.name)
    assert saves_of_folder(tmp_path) == [folder.name for folder in folders[1:]]


def saves_of_folder(storage):
    return sorted(folder.name for folder in storage.iterdir())


# --- what may change


def test_what_may_change_are_settings_that_there_are():
    assert TrainingSettings.model_fields.keys() >= FREE


def test_on_what_a_run_is_computed_does_not_make_it_another(tiny, tmp_path):
    same = ("training.workers=4", "training.gradient_accumulation=2", "training.max_failures=0")
    assert run_fingerprint(tiny(*same), tmp_path) == run_fingerprint(tiny(), tmp_path)


ADAMW = "training.optimizer=adamw"
OTHERS = ["batch_size=64", "seed=1", "max_steps=21", "minutes=1", "zero_stage=1", "device=cuda"]


@pytest.mark.parametrize("setting", OTHERS)
def test_what_a_run_learns_from_makes_it_another(tiny, tmp_path, setting):
    assert run_fingerprint(tiny(ADAMW, f"training.{setting}"), tmp_path) != run_fingerprint(tiny(ADAMW), tmp_path)


# --- for real

STEPS = 60
ONE = (f"training.max_steps={STEPS}", "training.validations=6", "training.batch_size=64")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, tiny, tiny_pairs, tmp_path_factory):
    """One worker to the end."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(tiny(*ONE), tiny_pairs, out, resume=False)
    return out


@pytest.mark.slow
def test_stopping_and_going_on_equals_never_stopping_bit_for_bit(undisturbed, tiny, tiny_pairs, tmp_path):
    """Muon and AdamW, moving average, schedule, random draws, order of the data, figures and what is said."""
    before = saves_of(undisturbed)[0]
    out = wind_back(undisturbed, tmp_path / "out", before)
    record = train(tiny(*ONE), tiny_pairs, out, resume=True)
    assert f"going on from step {50:,}" in log_of(out)
    assert record["steps"] == STEPS and record["finished"] == "steps" and record["skipped"] == 0
    assert record["last"] == record_of(undisturbed)["last"]
    require_same_state(saves_of(out)[-1], saves_of(undisturbed)[-1])
    assert validations_of(out) == validations_of(undisturbed)


@pytest.mark.nightly
def test_a_save_cut_short_on_disk_is_told_and_the_one_before_it_used(undisturbed, tiny, tiny_pairs, tmp_path):
    older, newest = saves_of(undisturbed)
    out = wind_back(undisturbed, tmp_path / "out", older)
    newest = shutil.copytree(newest, out / newest.parent.name / newest.name)
    weights = newest / "state" / "mp_rank_00_model_states.pt"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[: size // 2])
    train(tiny(*ONE), tiny_pairs, out, resume=True)
    assert f"{newest.name}: damaged on disk (state/{weights.name} has {size // 2:,} of {size:,} bytes)" in log_of(out)
    assert f"going on from the save before it, {older.name}" in log_of(out)
    assert saves_of(out)[-1].name != newest.name
    require_same_state(saves_of(out)[-1], saves_of(undisturbed)[-1])


@pytest.mark.slow
def test_without_a_whole_save_a_run_is_not_done_again_in_silence(undisturbed, tiny, tiny_pairs, tmp_path):
    only = saves_of(undisturbed)[-1]
    out = wind_back(undisturbed, tmp_path / "out", only)
    (only,) = saves_of(out)
    flip_bit(only / "ema.safetensors")
    with pytest.raises(ValueError, match=r"no save of this run is whole any more \(step-.*ema\.safetensors is not"):
        train(tiny(*ONE), tiny_pairs, out, resume=True)
    assert record_of(out)["finished"] is None and saves_of(out) == [only]


@pytest.mark.nightly
def test_a_bfloat16_model_at_stage_0_goes_on_bit_for_bit(ray_cluster, tiny, tiny_pairs, tmp_path):
    """Weights, float32 masters and Adam's steps, which DeepSpeed would begin with one too many."""
    config = tiny(ADAMW, "training.precision=bfloat16", "training.max_steps=8", "training.validations=4")
    train(config, tiny_pairs, tmp_path / "undisturbed", resume=False)
    before, end = saves_of(tmp_path / "undisturbed")
    out = wind_back(tmp_path / "undisturbed", tmp_path / "out", before)
    train(config, tiny_pairs, out, resume=True)
    assert "going on from step 6" in log_of(out)
    require_same_state(saves_of(out)[-1], end)


TWO = ("training.workers=2", "training.max_steps=30", "training.validations=6", "training.batch_size=48")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_two_workers_one_of_them_killed_come_to_the_same_end(ray_cluster, tiny, tiny_pairs, tmp_path):
    config = tiny(*TWO, ADAMW, "training.zero_stage=2")
    train(config, tiny_pairs, tmp_path / "undisturbed", resume=False)
    out = tmp_path / "out"
    with killer(out, after=2, which=1) as killed:
        record = train(config, tiny_pairs, out, resume=False)
    assert killed and " failed: it" in log_of(out) and "going on from step" in log_of(out)
    assert record["steps"] == 30
    require_same_state(saves_of(out)[-1], saves_of(tmp_path / "undisturbed")[-1], 1e-4)


CHANGED = ("training.max_steps=36", "training.validations=3", "training.batch_size=48", "training.learning_rate=0.003")
OFFLOADED = "training.offload_optimizer=cpu"
STAGES = [  # with what else changes, in the second sitting
    (("training.optimizer=muon", "training.zero_stage=0"), ()),
    ((ADAMW, "training.zero_stage=1"), ("training.activation_checkpointing=true",)),
    ((ADAMW, "training.zero_stage=2", "training.precision=bfloat16-mixed"), (OFFLOADED,)),
    ((ADAMW, "training.zero_stage=3"), (OFFLOADED, "training.offload_parameters=cpu")),
]
NAMES = ["zero-0-muon", "zero-1", "zero-2", "zero-3"]


@pytest.mark.nightly  # test_deepspeed_engine.py does so with the engine's state
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("settings", "then"),
    [pytest.param(*of, id=name) for of, name in zip(STAGES, NAMES, strict=True)],
)
def test_a_run_goes_on_with_other_numbers_of_workers(ray_cluster, tiny, tiny_pairs, tmp_path, settings, then):
    """2 workers for a third of the run, 1 for the next, 3 for the last: the same training.

    A step's texts, times and masks do not depend on the workers, so the NELBO of held-out texts is as far down, up to
    2% of what the last two thirds bring: sums are made in another order. That Adam's state came along is
    seen in its second moments: each gradient is clipped to a norm of 1, so they add up to 1 - 0.98^36 = 0.517 after 36
    steps; begun anew at step 24 it would be 0.215, and at step 12 0.384.
    """
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    with shelf(first, tmp_path / "shelf-2") as saves:
        train(tiny(*CHANGED, *settings, "training.workers=2"), tiny_pairs, first, resume=False)
    third_of_it = saves[12]
    wind_back(first, second, third_of_it)
    with shelf(second, tmp_path / "shelf-1") as saves:
        train(tiny(*CHANGED, *settings, *then, "training.workers=1"), tiny_pairs, second, resume=True)
    wind_back(second, third, saves[24])
    last = ("training.workers=3", "training.gradient_accumulation=2")
    record = train(tiny(*CHANGED, *settings, *last), tiny_pairs, third, resume=True)

    assert record["steps"] == 36 and record["finished"] == "steps"
    assert "going on from step 12, with 1 worker(s) after 2" in log_of(second)
    assert "going on from step 24, with 3 worker(s) after 1" in log_of(third)
    assert not list(third.glob("state-*/.universal"))
    unchanged, changed = saves_of(first)[-1], saves_of(third)[-1]
    way = nelbo(third_of_it, first, tiny_pairs) - nelbo(unchanged, first, tiny_pairs)
    assert way > 0
    assert nelbo(changed, first, tiny_pairs) == pytest.approx(nelbo(unchanged, first, tiny_pairs), abs=0.02 * way)
    assert second_moments(changed) == pytest.approx(second_moments(unchanged), rel=0.01)
    assert steps_of(changed) == steps_of(unchanged) == {36}


def nelbo(save, out, pairs):
    """Of a save's moving average, by the same draws whoever trained it."""
    checkpoint = load_checkpoint(out / "last")
    model = checkpoint.model
    model.load_state_dict(load_file(save / "ema.safetensors"), strict=False)
    recipe, held_out = checkpoint.config.pairs, read_pairs(pairs, "validation").renumbered(checkpoint.vocabulary)
    ends = checkpoint.vocabulary.ends(recipe.eos_id, recipe.pad_id)
    engine = LocalEngine(model, torch.optim.SGD(model.parameters()))
    return validate(model, held_out, TokenIds(model.config.mask_id, *ends), 1, engine).nats


def second_moments(save):
    """Sum of Adam's second moments over all workers' shares."""
    return sum(float(leaf.sum()) for path, leaf in leaves_of(states_of(save)) if path[-1] == "exp_avg_sq")


def steps_of(save):
    """Adam's own counts of its steps."""
    return {int(leaf) for path, leaf in leaves_of(states_of(save)) if path[-1] == "step" and "run" not in path}
