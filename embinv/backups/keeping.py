"""A checkpoint or a run into a place for backups: copied, read back, and only then older ones deleted.

What is there already is not copied again. A copy that was cut short has no manifest and is no backup; it is cleared
away a day later. Nothing in the folder that is copied is changed.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from embinv.backups.manifest import NAME, STAMP, Kind, Manifest, described, manifest_of, own_files
from embinv.backups.place import Damaged, Place

LEFT_ALONE = timedelta(days=1)  # a copy without a manifest may still be at work

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """A backup that is whole and was read back.

    Attributes:
        manifest: what it holds.
        is_new: whether it was made now; False where one with the same content was there.
        deleted: names of older ones that went for it.
    """

    manifest: Manifest
    is_new: bool
    deleted: tuple[str, ...]


def back_up(
    folder: Path,
    place: Place,
    kind: Kind = "checkpoint",
    label: str | None = None,
    keep: int | None = None,
    on_progress: OnProgress = lambda line: None,
) -> Kept:
    """Makes a backup, or finds the one that holds the same.

    Args:
        folder: a checkpoint, or the folder of a run.
        place: where to.
        kind: which of the two.
        label: name of the backup; None takes the checkpoint's.
        keep: delete the oldest of this kind and label beyond so many; None deletes none.
        on_progress: told what is being done.

    Raises:
        ValueError: the folder is no such, changes meanwhile, or the place cannot be reached or gives back what was not
            written.
    """
    sources = own_files(folder, kind)
    manifest = manifest_of(kind, label or label_of(folder, kind), described(sources))
    same = [each for each in place.manifests() if (each.kind, each.content) == (kind, manifest.content)]
    for earlier in same:
        if earlier.label == manifest.label and not damage(place, earlier, on_progress):
            return Kept(earlier, False, _pruned(place, earlier, keep))
    for number, (inside, source) in enumerate(sources.items(), start=1):
        on_progress(f"copying {number:,} of {len(sources):,}: {inside}")
        try:
            copied = place.put(manifest.name, inside, source)
        except FileNotFoundError as error:
            raise ValueError(_changed(kind, folder, inside)) from error
        if copied != manifest.files[inside]:
            raise ValueError(_changed(kind, folder, inside))
    found = damage(place, manifest, on_progress)
    if found:
        raise ValueError(f"--to {place.url}: gives back other files than were written ({found[0]}); try again")
    place.finish(manifest)
    return Kept(manifest, True, _pruned(place, manifest, keep))


def damage(place: Place, manifest: Manifest, on_progress: OnProgress = lambda line: None) -> list[str]:
    """Reads a backup to its end; returns what is wrong with it."""
    found: list[str] = []
    for number, (inside, file) in enumerate(manifest.files.items(), start=1):
        on_progress(f"reading back {number:,} of {len(manifest.files):,}: {inside}")
        wrong = place.check(manifest.name, inside, file)
        if wrong is not None:
            found.append(wrong)
    return found


def label_of(folder: Path, kind: Kind) -> str:
    """The name that a checkpoint has, as a backup's label.

    Raises:
        ValueError: it cannot be read.
    """
    path = folder / ("config.json" if kind == "checkpoint" else "_run.json")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        name = str((tree if kind == "checkpoint" else tree["config"])["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give --label NAME to copy it all the same") from error
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_") or kind


def may_be_at_work(name: str) -> bool:
    """Whether a folder without a manifest is, by its name, a copy that began so lately that it may still be written."""
    match = NAME.fullmatch(name)
    if match is None:
        return False
    return datetime.now(UTC) - datetime.strptime(match["stamp"], STAMP).replace(tzinfo=UTC) <= LEFT_ALONE


def _pruned(place: Place, newest: Manifest, keep: int | None) -> tuple[str, ...]:
    """Deletes the oldest backups of the same kind and label, and copies that were cut short long ago."""
    if keep is None:
        return ()
    whole = [each for each in place.manifests() if (each.kind, each.label) == (newest.kind, newest.label)]
    others = [each.name for each in whole if each.name != newest.name]
    gone = others[max(0, keep - 1) :]
    names = {each.name for each in whole}
    gone += [name for name in place.names() if name not in names and _cut_short(place, name, newest.label)]
    for name in gone:
        place.delete(name)
    return tuple(gone)


def _cut_short(place: Place, name: str, label: str) -> bool:
    """Whether a folder is what a copy of this label left that ended a day ago or more without a manifest."""
    match = NAME.fullmatch(name)
    if match is None or match["label"] != label:
        return False
    try:
        return place.manifest(name) is None and not may_be_at_work(name)
    except Damaged:  # a backup that --verify names, and not what was cut short
        return False


def _changed(kind: Kind, folder: Path, inside: str) -> str:
    return f"--{kind} {folder}: {inside} changed while it was copied, and no backup was made; run the command again"
