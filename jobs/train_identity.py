"""Which settings and pairs make a run what it is, and which settings may change between two sittings of it.

What a run learns follows from its data and from all settings but those in FREE, which only say on what it is computed.
"""

import hashlib
from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from embinv.config import Config
from embinv.data.identity import checksum
from jobs.outputs import SUCCESS_FILE
from jobs.shards import read_ids
from jobs.staging import shown

# Which texts a step takes, its times and its masks depend on training.seed and training.batch_size alone, whatever the
# number of workers and passes: with others of those, the same sums are made in another order, and the run agrees to the
# noise of that. Dropout alone is drawn by each worker for itself.
FREE = frozenset(
    {
        "accelerator",
        "nodes",
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
LATER = {"model.corrector": False, "model.inverter": None, "data.correction": 0.0}
"""Settings that were not there from the beginning: at these values a run is what it was without them."""
OTHER_JOBS = frozenset({"evaluation", "encoding"})
LEARNT_FROM = ("train", "validation")  # the latter says which checkpoint is the best, and when to stop early
RECORDED = frozenset({"fingerprint", "data", "pairs", "config", "finished", "steps"})


def run_fingerprint(config: Config, data: Path) -> str:
    """Names a run: the same settings and data go on with the same state, others never do."""
    return hashlib.sha256(dumps([_learnt_from(config), shown(data)], sort_keys=True).encode()).hexdigest()[:12]


def require_finished(data: Path) -> None:
    """Refuses pairs of which more are to come.

    Raises:
        ValueError: the job that makes them has not come to its end.
    """
    if not (data / SUCCESS_FILE).is_file():
        raise ValueError(
            f"--data {data}: the job that writes there has not finished (no {SUCCESS_FILE}); run the same command of "
            "jobs/encode.py or jobs/hypotheses.py again"
        )


def identity_of(data: Path, splits: Sequence[str] = LEARNT_FROM) -> dict[str, Any]:
    """Which texts the pairs are of: `split.rows` and `split.ids`, a checksum of ids that are hashes of the texts."""
    found: dict[str, Any] = {}
    for split in splits:
        ids = read_ids(sorted(data.glob(f"split={split}/*.parquet")))
        found |= {f"{split}.rows": len(ids), f"{split}.ids": checksum(ids)}
    return found


def train_texts(ids: np.ndarray) -> dict[str, Any]:
    """What a checkpoint says of the texts [N] that it learnt from, so that others can be shown to be new to it."""
    return {"train_rows": len(ids), "train_ids": checksum(ids)}


def read_record(path: Path) -> dict[str, Any]:
    """What a run's `_run.json` holds.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        record = loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}); put it back from a backup, or choose another --out") from error
    if not isinstance(record, dict) or not record.keys() >= RECORDED:
        raise ValueError(f"{path}: is damaged or of another version; choose another --out")
    return record


def require_same_run(
    record: dict[str, Any], config: Config, data: Path, pairs: dict[str, Any], out: Path, resume: bool
) -> None:
    """Refuses to go on with other settings or pairs, or without being told to.

    Args:
        record: what the run's `_run.json` holds.
        config: of now.
        data: folder of the pairs of now.
        pairs: their identity.
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
        known = dict.fromkeys([*now, *before])  # of both, in order
        differing = [
            f"{key}: {before.get(key)!r} != {now.get(key)!r}" for key in known if before.get(key) != now.get(key)
        ]
        if record["data"] != shown(data):
            differing.append(f"--data: {record['data']} != {shown(data)}")
        why = f" ({'; '.join(differing)})" if differing else ""
        raise ValueError(f"--out {out}: holds a run with other settings{why}; choose another folder")
    if record["pairs"] != pairs:
        before = record["pairs"]
        differing = [f"{key}: {before.get(key)} != {pairs[key]}" for key in pairs if before.get(key) != pairs[key]]
        raise ValueError(
            f"--data {data}: holds other pairs than the run in {out} learns from ({'; '.join(differing)}); put those "
            "back, or choose another --out"
        )
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
    free = {f"training.{name}" for name in FREE}
    return {
        key: value for key, value in found.items() if key not in free and not (key in LATER and value == LATER[key])
    }
