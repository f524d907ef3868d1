"""What a job leaves in its output folder, so that it can be told from a stranger's, and deleted on demand.

Beside the folder lies, under a hidden name, what a job builds before it is whole.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from embinv.data.folders import replace_folder
from embinv.provenance.sittings import PROVENANCE_FILE
from jobs.arguments import SETTINGS_FILE
from jobs.rejects import FOLDER

STATS_FILE = "_stats.json"
SUCCESS_FILE = "_SUCCESS"  # empty: all that belongs to the folder is in it
OURS = {STATS_FILE, SUCCESS_FILE, SETTINGS_FILE, PROVENANCE_FILE, FOLDER}


def require_ours(out: Path, ours: Callable[[Path], bool]) -> None:
    """Refuses a folder that holds what a job did not make.

    Args:
        out: the folder, which need not be there.
        ours: whether something in it is the job's data; what every job leaves need not be known to it.

    Raises:
        ValueError: it holds something else.
    """
    found = list(out.iterdir()) if out.exists() else []
    foreign = [path.name for path in found if path.name not in OURS and not ours(path)]
    if foreign:
        raise ValueError(f"--overwrite would delete {out}, but this job did not make {foreign[0]} in it; move it away")


def delete_ours(out: Path, ours: Callable[[Path], bool]) -> None:
    """Deletes what a job made, and nothing else; arguments and errors as in `require_ours`."""
    require_ours(out, ours)
    (out / SUCCESS_FILE).unlink(missing_ok=True)  # first: killed in between, the rest would pass for the whole
    shutil.rmtree(out, ignore_errors=True)


def put_in_place(new: Path, out: Path, ours: Callable[[Path], bool]) -> None:
    """Puts a finished folder where an older one of ours may be; one of them is there whenever a kill comes.

    Raises:
        ValueError: the older one holds what the job did not make.
    """
    require_ours(out, ours)
    replace_folder(new, out)


def require_siblings(out: Path) -> None:
    """Refuses an output folder beside which nothing can be put.

    Raises:
        ValueError: it is a mount point, so that what lies beside it is on another disk.
    """
    if out.exists() and out.stat().st_dev != out.parent.stat().st_dev:
        raise ValueError(f"--out {out}: is a mount point; give a folder inside it, such as {out / 'out'}")
