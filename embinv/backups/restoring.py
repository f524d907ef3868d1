"""A backup into its folder: fetched beside it, every file checked, and only then put in place.

A damaged backup is refused, and what was there stays. A checkpoint can take an older one's place; a run cannot, since
data may lie in its folder.
"""

import shutil
from pathlib import Path

from embinv.backups.keeping import OnProgress
from embinv.backups.manifest import MARKS, Kind, Manifest, content_of, described, own_files
from embinv.backups.place import Place
from embinv.data.folders import replace_folder


def choose(place: Place, kind: Kind, name: str | None) -> Manifest:
    """The backup of this name, or the newest of a kind.

    Raises:
        ValueError: there is none, it is of the other kind, or there are several to choose from.
    """
    if name is not None:
        found = place.manifest(name)
        if found is None:
            there = ", ".join(each.name for each in place.manifests()) or "none"
            raise ValueError(f"--name {name}: {place.url} has no whole backup of this name, but {there}")
        if found.kind != kind:
            raise ValueError(f"--name {name}: holds a {found.kind}; give --{found.kind} DIR")
        return found
    every = [each for each in place.manifests() if each.kind == kind]
    if not every:
        raise ValueError(f"--from {place.url}: holds no backup of a {kind}; make one with `embinv backup --to`")
    labels = sorted({each.label for each in every})
    if len(labels) > 1:
        raise ValueError(f"--from {place.url}: holds backups of {', '.join(labels)}; choose one with --name")
    return every[0]


def restore(
    place: Place,
    manifest: Manifest,
    folder: Path,
    overwrite: bool = False,
    on_progress: OnProgress = lambda line: None,
) -> bool:
    """Puts a backup into its folder, whole or not at all.

    Args:
        place: where it lies.
        manifest: which.
        folder: to make.
        overwrite: let it take the place of another checkpoint.
        on_progress: told what is being done.

    Returns:
        Whether anything was to do: False where the folder holds just this already.

    Raises:
        ValueError: the backup is damaged, or the folder holds something that must not go.
    """
    folder = folder.resolve()  # a link is followed, and not put in the place of what it leads to
    if _holds(folder, manifest):
        return False
    _require_free(folder, manifest.kind, overwrite)
    partial = folder.with_name(f".{folder.name}.restored")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for number, (inside, file) in enumerate(manifest.files.items(), start=1):
            on_progress(f"fetching {number:,} of {len(manifest.files):,}: {inside}")
            target = partial / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            wrong = place.check(manifest.name, inside, file, target)
            if wrong is not None:
                raise ValueError(
                    f"{place.url}/{manifest.name}: is damaged ({wrong}), and {folder} was left as it is; choose "
                    "another with --name, `embinv backup --verify --to` says which are whole"
                )
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder holds exactly what a backup does."""
    if not all((folder / mark).is_file() for mark in MARKS[manifest.kind]):
        return False
    return content_of(described(own_files(folder, manifest.kind))) == manifest.content


def _require_free(folder: Path, kind: Kind, overwrite: bool) -> None:
    """Refuses a folder that holds what would be lost."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--{kind} {folder}: is a file; give a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if kind == "run":
        raise ValueError(f"--run {folder}: is not empty; restore a run into a new folder, and move what you need of it")
    if not all((folder / mark).is_file() for mark in MARKS[kind]):
        raise ValueError(f"--{kind} {folder}: holds something that is no checkpoint; give another folder")
    if not overwrite:
        raise ValueError(
            f"--{kind} {folder}: holds another checkpoint; give --overwrite to put the backup in its place, or another "
            "folder"
        )
