"""`embinv backup` and `embinv restore`: checkpoints and runs to a safe place, and back."""

from argparse import Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any

from embinv.backups.keeping import back_up, damage, may_be_at_work
from embinv.backups.manifest import MANIFEST_FILE, NAME, Kind, Manifest
from embinv.backups.place import Damaged, Place
from embinv.backups.restoring import choose, restore
from embinv.commands.progress import Progress
from embinv.commands.values import positive

PLACES = "a folder, or an s3:// or gs:// URI (credentials from the environment)"


def add(commands: "_SubParsersAction[Any]") -> None:
    """Adds both commands."""
    keep = commands.add_parser(
        "backup",
        help="a checkpoint or a run to a safe place",
        description="Copy a checkpoint, or a run with its saves, under a name of time and content; read it back; and "
        "then, with --keep, delete the oldest. What is there already is not copied again.",
        epilog="examples:\n"
        "  embinv backup --checkpoint runs/my/checkpoint --to s3://bucket/backups --keep 5\n"
        "  embinv backup --run runs/my --to /mnt/backups       all that --resume takes\n"
        "  embinv backup --list --to s3://bucket/backups\n"
        "  embinv backup --verify --to s3://bucket/backups     read all of them to their ends",
        formatter_class=RawDescriptionHelpFormatter,
    )
    what = keep.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", metavar="DIR", help="folder of a checkpoint")
    what.add_argument(
        "--run", dest="run_dir", metavar="DIR", help="folder that jobs/train.py writes: checkpoints, saves, log"
    )
    what.add_argument("--list", action="store_true", help="say which backups there are")
    what.add_argument(
        "--verify", nargs="*", metavar="NAME", help="read backups to their ends, all or those named, and compare"
    )
    keep.add_argument("--to", required=True, metavar="PLACE", help=PLACES)
    keep.add_argument("--label", metavar="NAME", help="name of the backup (default: the checkpoint's own)")
    keep.add_argument(
        "--keep", type=positive, metavar="N", help="delete the oldest of this name beyond N, once the new one is whole"
    )
    keep.set_defaults(run=backup)

    back = commands.add_parser(
        "restore",
        help="a checkpoint or a run from its backup",
        description="Fetch a backup, check every file, and put it in its place. A damaged one is refused, and what is "
        "there stays.",
        epilog="examples:\n"
        "  embinv restore --from s3://bucket/backups --checkpoint runs/my/checkpoint\n"
        "  embinv restore --from /mnt/backups --name minilm-20261122T101500Z-0123456789ab --checkpoint runs/old",
        formatter_class=RawDescriptionHelpFormatter,
    )
    back.add_argument("--from", dest="source", required=True, metavar="PLACE", help=PLACES)
    back.add_argument("--name", metavar="NAME", help="which backup (default: the newest)")
    target = back.add_mutually_exclusive_group(required=True)
    target.add_argument("--checkpoint", metavar="DIR", help="folder to make")
    target.add_argument(
        "--run", dest="run_dir", metavar="DIR", help="folder to make of a run; it must be empty or absent"
    )
    back.add_argument("--overwrite", action="store_true", help="take the place of the checkpoint that is there")
    back.set_defaults(run=bring_back)


def backup(arguments: Namespace) -> None:
    """Makes a backup, lists them or reads them.

    Raises:
        ValueError: a folder or the place cannot be used, or a backup is damaged.
    """
    place = Place(arguments.to)
    if arguments.list:
        _list(place)
        return
    if arguments.verify is not None:
        _verify(place, arguments.verify)
        return
    kind: Kind = "checkpoint" if arguments.checkpoint is not None else "run"
    folder, progress = Path(arguments.checkpoint or arguments.run_dir), Progress()
    kept = back_up(folder, place, kind, arguments.label, arguments.keep, progress.now)
    said = "copied and read back" if kept.is_new else "there already, and whole"
    progress.line(f"{len(kept.manifest.files):,} files, {_size(kept.manifest)}: {said}")
    for name in kept.deleted:
        print(f"deleted {place.url}/{name}")
    print(f"{place.url}/{kept.manifest.name}")


def bring_back(arguments: Namespace) -> None:
    """Puts a backup into its folder.

    Raises:
        ValueError: there is none, it is damaged, or the folder holds something else.
    """
    kind: Kind = "checkpoint" if arguments.checkpoint is not None else "run"
    folder, progress = Path(arguments.checkpoint or arguments.run_dir), Progress()
    place, name = Place(arguments.source), arguments.name
    if name is None and place.holds_one():
        above, _, name = place.url.rpartition("/")
        place = Place(above)
    manifest = choose(place, kind, name)
    changed = restore(place, manifest, folder, arguments.overwrite, progress.now)
    progress.line(f"{len(manifest.files):,} files, {_size(manifest)}: {'restored' if changed else 'there already'}")
    print(f"{folder}: {manifest.name}")


def _list(place: Place) -> None:
    found = place.manifests()
    for manifest in found:
        print(f"{manifest.name}  {manifest.kind:<10}  {_size(manifest):>10}")
    print(f"{len(found):,} whole backups in {place.url}")
    others = sorted(set(place.names()) - {manifest.name for manifest in found})
    if others:
        print(f"no whole backups: {', '.join(others)}")


def _verify(place: Place, names: list[str]) -> None:
    """Reads the named backups, or all; a copy that another process may be writing is damaged only if it was named.

    Raises:
        ValueError: a backup is damaged or absent, or there is none at all.
    """
    progress, wrong, whole = Progress(), [], 0
    for name in names or [each for each in place.names() if NAME.fullmatch(each)]:
        try:
            manifest = place.manifest(name)
            if manifest is None and not names and may_be_at_work(name):
                progress.line(f"{name}: not whole yet; it is younger than a day, so a copy may still be at work")
                continue
            absent = ["no backup, or one that was cut short"]
            found = absent if manifest is None else damage(place, manifest, progress.now)
        except Damaged as error:
            found = [str(error)]
        progress.line(f"{name}: {'; '.join(found) if found else 'whole'}")
        wrong += [name] if found else []
        whole += not found
    if wrong:
        raise ValueError(f"--verify: {', '.join(wrong)} cannot be restored; make a new backup, and delete these")
    if not whole:
        raise ValueError(f"--to {place.url}: holds no whole backup; correct the place, or make a backup there")
    print(f"all is as {MANIFEST_FILE} says")


def _size(manifest: Manifest) -> str:
    size = float(manifest.bytes)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
