"""The state of a training run on disk: all that going on as if nothing had happened needs.

    DIR/state-<run>/
      step-000000120-20260102-030405.678/   one save; the two newest are kept
        state/            DeepSpeed's: weights and optimizer, whole or in each worker's part
        ema.safetensors   the moving average, float32
        run.json          `RunState`, and what a resume must know before it loads
        manifest-<rank>.json   what each worker wrote, with checksums
        complete          all workers had written all of it
      damaged-step-...    a save that was complete once and is not what was written any more; for a person to look at
      .saving-...         what one worker is writing: its share of the next save

Which save to go on from follows from the folders alone. Ray Train's reports are not used: they would copy each share
from a temporary folder of the node, which has to hold it too, and keep a list of saves that a full disk or a kill
leaves half written.
"""

import os
import shutil
from datetime import datetime
from json import loads
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file

from embinv.training.ema import EMA
from embinv.training.loop import RunState
from jobs.arguments import write_json
from jobs.deepspeed_engine import TAG, DeepSpeedEngine
from jobs.train_disk import disk_errors_by_name
from jobs.train_manifest import fault_of, read_manifest, write_manifest

KEPT = 2  # saves
COMPLETE = "complete"
SAVES = "step-*"
DAMAGED = "damaged-"
SAVING = ".saving-"
RUN_STATE = "run.json"
EMA_FILE = "ema.safetensors"


class Saved(NamedTuple):
    """A whole save.

    Attributes:
        folder: where it lies.
        step: steps made.
        world: workers that made it.
        batch_size: texts in each of those steps, over all workers.
        precision: of those steps, which may have been found by what the hardware has.
        partitioned: each worker wrote a part of the optimizer, which only as many workers can read as it is.
    """

    folder: Path
    step: int
    world: int
    batch_size: int
    precision: str
    partitioned: bool


# --- writing


def save_name(step: int) -> str:
    """A folder for a save; a step that a crash took back is saved under another name than before."""
    return f"step-{step:09d}-{datetime.now():%Y%m%d-%H%M%S.%f}"[:-3]


def keep(folder: Path, engine: DeepSpeedEngine, ema: EMA, state: RunState) -> None:
    """Writes this worker's share of the run's state into an empty folder.

    Raises:
        OSError: it cannot be written.
    """
    with disk_errors_by_name(folder):
        engine.save(folder)
        if engine.rank == 0:
            average = {name: weight.detach().contiguous() for name, weight in ema.model.named_parameters()}
            save_file(average, folder / EMA_FILE)
            as_begun = {"batch_size": engine.settings.texts_per_step, "precision": engine.settings.precision}
            write_json(folder / RUN_STATE, {**state.as_dict(), "ema_updates": ema.updates, **as_begun})
    write_manifest(folder, engine.rank, engine.world, state.step)


def hand_in(share: Path, storage: Path, name: str) -> None:
    """Moves what one worker wrote, below `storage`, into the save that all of them make together."""
    for path in [path for path in share.rglob("*") if path.is_file()]:
        place = storage / name / path.relative_to(share)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)


def complete(storage: Path, name: str) -> None:
    """Notes that all workers have written a save, and deletes those before the last two."""
    (storage / name / COMPLETE).touch()
    for folder in _saves(storage)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


# --- reading


def newest_whole(storage: Path) -> tuple[Saved | None, list[str]]:
    """The save to go on from, and sentences about those that cannot be used.

    What was being written when the run stopped is deleted. A save that was complete and is not any more is set
    aside, and the one before it taken.

    Raises:
        ValueError: there were complete saves, and none of them is whole now.
    """
    for share in storage.glob(f"{SAVING}*"):
        shutil.rmtree(share, ignore_errors=True)
    told: list[str] = []
    damaged: dict[Path, str] = {}
    for folder in _saves(storage):
        fault = fault_of(folder)
        if fault is None:
            for bad, why in damaged.items():
                told.append(f"{bad.name}: damaged on disk ({why}); going on from the save before it, {folder.name}")
                bad.rename(storage / f"{DAMAGED}{bad.name}")
            return read_saved(folder), told
        if (folder / COMPLETE).exists():
            damaged[folder] = fault
        else:
            told.append(f"{folder.name}: was being written when the run stopped ({fault}); not used")
            shutil.rmtree(folder, ignore_errors=True)
    if damaged:
        faults = "; ".join(f"{folder.name}: {why}" for folder, why in damaged.items())
        raise ValueError(
            f"{storage}: no save of this run is whole any more ({faults}); put one back from a backup, or choose "
            "another --out to train from the beginning"
        )
    return None, told


def read_saved(folder: Path) -> Saved:
    """Describes a whole save."""
    manifest = read_manifest(folder)
    tree = loads((folder / RUN_STATE).read_text(encoding="utf-8"))
    partitioned = any((folder / TAG).glob("*zero_pp_rank_*_optim_states.pt"))
    return Saved(folder, manifest["step"], manifest["world"], tree["batch_size"], tree["precision"], partitioned)


def newest_run_state(storage: Path) -> dict[str, Any]:
    """What the newest save says about the run: the fields of `RunState`, and `batch_size`."""
    return loads((_saves(storage)[0] / RUN_STATE).read_text(encoding="utf-8"))


def restore(saved: Saved, engine: DeepSpeedEngine, ema: EMA, universal: Path | None = None) -> RunState:
    """Reads what `keep` wrote.

    Args:
        saved: which.
        engine: as it was made.
        ema: of the same model.
        universal: in place of a partitioned state, the folder that jobs/train_universal.py made of it.
    """
    engine.load(saved.folder if universal is None else universal, universal is not None)
    tree = loads((saved.folder / RUN_STATE).read_text(encoding="utf-8"))
    ema.updates = tree.pop("ema_updates")
    del tree["batch_size"], tree["precision"]
    ema.model.load_state_dict(load_file(saved.folder / EMA_FILE, device=str(engine.device)), strict=True)
    return RunState(**tree)


def _saves(storage: Path) -> list[Path]:
    """Folders of saves, the newest first: by step, then by time."""
    return sorted(storage.glob(SAVES), key=lambda folder: folder.name, reverse=True)
