"""The state of a training run on disk: all that going on as if nothing had happened needs."""

from json import loads
from pathlib import Path

from safetensors.torch import load_file, save_file

from embinv.training.ema import EMA
from embinv.training.loop import RunState
from jobs.arguments import write_json
from jobs.deepspeed_engine import DeepSpeedEngine


def keep(folder: Path, engine: DeepSpeedEngine, ema: EMA, state: RunState) -> None:
    """Writes this worker's share of the run's state."""
    engine.save(folder)
    if engine.rank == 0:
        save_file(
            {name: p.detach().contiguous() for name, p in ema.model.named_parameters()}, folder / "ema.safetensors"
        )
        write_json(folder / "run.json", {**state.as_dict(), "ema_updates": ema.updates})


def restore(folder: Path, engine: DeepSpeedEngine, ema: EMA) -> RunState:
    """Reads what `keep` wrote."""
    engine.load(folder)
    tree = loads((folder / "run.json").read_text(encoding="utf-8"))
    ema.updates = tree.pop("ema_updates")
    ema.model.load_state_dict(load_file(folder / "ema.safetensors", device=str(engine.device)), strict=True)
    return RunState(**tree)
