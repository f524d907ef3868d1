"""What an output folder was made with, so that only the same run goes on there."""

from pathlib import Path
from shutil import rmtree
from typing import Any

from jobs.exactly_once import progress_folder, run_that_made


def earlier_run(out: Path, what: str, known_by: str) -> dict[str, Any] | None:
    """What made what lies in a folder; None if nothing does, and then nothing of an older run is gone on with.

    Args:
        out: the folder.
        what: the job makes, for the message.
        known_by: a key that such runs have and other jobs' have not.

    Raises:
        ValueError: it holds something of another origin.
    """
    progress = progress_folder(out)
    if not out.exists() or not any(out.iterdir()):
        rmtree(progress, ignore_errors=True)  # left by a run whose output is gone: its ids would be skipped
        return None
    earlier = run_that_made(out)
    if earlier is None or known_by not in earlier:
        raise ValueError(f"--out {out}: is not empty and holds no {what} of ours; choose another folder")
    return earlier


def require_same_settings(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to mix what two runs make; what `found` does not name was not known to it and may be anything.

    Raises:
        ValueError: a setting differs; the message names the first that does.
    """
    before, now = flat(found), flat(wanted)
    differing = [name for name in now if name in before and now[name] != before[name]]
    if differing:
        name = differing[0]
        raise ValueError(
            f"--out {out}: was made with {name} = {before[name]!r}, not {now[name]!r}; choose another folder, or give "
            "--overwrite to make it anew"
        )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as `section.key: value`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
