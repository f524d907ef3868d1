"""Which settings make a run what it is, and which may change between two sittings of it.

What a run learns follows from its data and from all settings but those in FREE, which only say on what it is computed.
"""

import hashlib
from json import dumps
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embinv.config import Config

# The order of the data depends on training.batch_size alone, over all workers and passes. Times and masks are drawn by
# each worker for itself, so a run whose workers changed is another sample of the same training.
FREE = frozenset(
    {
        "workers",
        "threads",
        "gradient_accumulation",
        "max_failures",
        "max_skipped",
        "offload_optimizer",
        "offload_parameters",
        "activation_checkpointing",
        "compile",
        "trackers",
    }
)
OTHER_JOBS = frozenset({"evaluation", "encoding"})


def run_fingerprint(config: Config, data: Path) -> str:
    """Names a run: the same settings and data go on with the same state, others never do."""
    return hashlib.sha256(dumps([_learnt_from(config), str(data)], sort_keys=True).encode()).hexdigest()[:12]


def require_same_run(record: dict[str, Any], config: Config, data: Path, out: Path, resume: bool) -> None:
    """Refuses to go on with other settings, or without being told to.

    Args:
        record: what the run's `_run.json` holds.
        config: of now.
        data: pairs of now.
        out: the run's folder, for the message.
        resume: whether going on was asked for.

    Raises:
        ValueError: a setting or the data differ, which the message names; or `resume` is False.
    """
    if record["fingerprint"] != run_fingerprint(config, data):
        try:
            before = _learnt_from(Config.model_validate(record["config"]))
        except ValidationError as error:
            raise ValueError(
                f"--out {out}: holds a run whose settings this version does not know; choose another folder"
            ) from error
        now = _learnt_from(config)
        differing = [f"{key}: {before.get(key)!r} != {now.get(key)!r}" for key in now if before.get(key) != now[key]]
        if record["data"] != str(data):
            differing.append(f"--data: {record['data']} != {data}")
        why = f" ({'; '.join(differing)})" if differing else ""
        raise ValueError(f"--out {out}: holds a run with other settings{why}; choose another folder")
    if not resume:
        raise ValueError(f"--out {out}: holds this very run; add --resume to go on with it, or choose another folder")


def _learnt_from(config: Config) -> dict[str, Any]:
    """The settings that make the run, by `section.key`."""
    found: dict[str, Any] = {}
    for section, values in config.model_dump(mode="json", exclude=set(OTHER_JOBS)).items():
        if isinstance(values, dict):
            found |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            found[section] = values
    return {key: value for key, value in found.items() if key not in {f"training.{name}" for name in FREE}}
