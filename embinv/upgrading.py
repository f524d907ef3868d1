"""An older checkpoint folder rewritten as one of today: config.json in the newest format, and what it lacks.

    config.json             of the newest format; the older one stays beside it as config.format-N.json
    statistics.safetensors  the form of the training vectors, made of the pairs that it learnt from, if those are given

The new folder is made beside the old one, loaded to see that it can be, and put in its place in one step. Weights,
tokenizer and vocabulary are the same files. An older folder need not be upgraded: it is read as it is.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embinv.checkpoint import STATISTICS_FILE, CheckpointConfig, load_checkpoint, read_checkpoint_config
from embinv.checkpoint_versions import FORMAT_VERSION
from embinv.data.corrections import read_corrections
from embinv.data.folders import replace_folder, whole_file
from embinv.data.identity import checksum
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.provenance.sittings import PROVENANCE_FILE, new_sitting, read_provenance, with_end, with_sitting
from embinv.spaces.moments import EmbeddingStatistics, Shape, moments_of

JOB = "embinv upgrade"
ALIKE = 1e-4  # means and deviations are kept to six digits; other texts differ by a hundred times this


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did.

    Attributes:
        before: format of the folder as it was.
        after: as it is.
        added: what it lacked and holds now.
    """

    before: int
    after: int
    added: tuple[str, ...]

    @property
    def is_changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after or bool(self.added)


def upgrade_checkpoint(folder: Path, data: Path | None = None) -> Upgraded:
    """Rewrites a checkpoint folder in the newest format, whole or not at all.

    Args:
        folder: of the checkpoint.
        data: the pairs that it learnt from (a corrector's: hypotheses), to add what it does not know of them.

    Raises:
        ValueError: the folder is no checkpoint, damaged or of a newer embinv, or did not learn from these pairs.
    """
    folder = folder.resolve()  # a link is followed, and not put in the place of what it leads to
    config = read_checkpoint_config(folder)
    partial = folder.with_name(f".{folder.name}.upgraded")
    shutil.rmtree(partial, ignore_errors=True)  # left by a kill
    before = json.loads((folder / "config.json").read_text(encoding="utf-8"))["format_version"]
    added: list[str] = []
    shape = None
    if data is not None:
        config, shape, added = _with_what_is_known_of(data, config, folder)
    if before == FORMAT_VERSION and not added:
        return Upgraded(before, before, ())
    try:
        _copy(folder, partial)
        if before != FORMAT_VERSION:
            shutil.copyfile(folder / "config.json", partial / f"config.format-{before}.json")
        _put(partial / "config.json", config.model_dump_json(indent=2) + "\n")
        if shape is not None:
            with whole_file(partial / STATISTICS_FILE) as path:
                shape.save(path)
        settings = {"from": before, "to": FORMAT_VERSION, "data": None if data is None else str(data)}
        made = with_sitting(read_provenance(folder / PROVENANCE_FILE), new_sitting(JOB, settings))
        _put(partial / PROVENANCE_FILE, with_end(made, JOB))
        load_checkpoint(partial)  # raises what is wrong with it before it takes the place of one that works
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Upgraded(before, FORMAT_VERSION, tuple(added))


def _with_what_is_known_of(
    data: Path, config: CheckpointConfig, folder: Path
) -> tuple[CheckpointConfig, Shape | None, list[str]]:
    """The config and the shape of the training vectors with what the pairs say, and names of what was added."""
    require_same_recipe(read_recipe(data), config.pairs, data, f"the checkpoint {folder}")
    learnt = read_corrections(data, "train").pairs if config.corrects else read_pairs(data, "train")
    vectors = learnt.embeddings[np.isfinite(learnt.embeddings).all(axis=1)]
    moments = moments_of(vectors)
    _require_learnt_from(learnt, moments.statistics(), config, data, folder)
    added: list[str] = []
    changes: dict[str, Any] = {}
    if config.training.get("train_ids") is None:
        texts = {"train_rows": len(learnt), "train_ids": checksum(learnt.ids)}
        changes["training"] = config.training | texts
        added.append("training.train_ids")
    if config.statistics is None:
        changes["statistics"] = moments.statistics()
        added.append("statistics")
    shape = None
    if not (folder / STATISTICS_FILE).exists():
        shape = moments.shape()
        added.append(STATISTICS_FILE)
    return config.model_copy(update=changes), shape, added


def _require_learnt_from(
    learnt: Pairs, found: EmbeddingStatistics, config: CheckpointConfig, data: Path, folder: Path
) -> None:
    """Refuses pairs of other texts than those that the checkpoint says it learnt from.

    Raises:
        ValueError: they differ; or it says nothing that they could be known by.
    """
    ids, rows, own = checksum(learnt.ids), len(learnt), config.training.get("train_ids")
    if own is not None:
        same = (own, config.training.get("train_rows", rows)) == (ids, rows)
        by = f"train_ids: {own} != {ids}"
    elif (kept := config.statistics) is not None:  # older ones know the mean of their vectors alone
        near = [np.allclose(getattr(kept, name), getattr(found, name), atol=ALIKE) for name in ("mean", "std")]
        same = kept.rows == found.rows and all(near)
        by = f"rows: {kept.rows:,} != {found.rows:,}, or the mean of their vectors"
    else:
        raise ValueError(
            f"--checkpoint {folder}: says nothing of what it learnt from, so pairs cannot be known as those; leave "
            "--data out"
        )
    if not same:
        raise ValueError(f"--data {data}: split=train holds other texts than {folder} learnt from ({by})")


def _copy(folder: Path, partial: Path) -> None:
    """The files of a checkpoint in a new folder; large ones take no space of their own where the disk can link."""
    for source in sorted(folder.rglob("*")):
        target = partial / source.relative_to(folder)
        if source.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)


def _put(path: Path, text: str) -> None:
    """Writes a file beside, and not through, what a link of the same name leads to."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
