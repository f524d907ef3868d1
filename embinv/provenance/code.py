"""Which code runs here: the release, the commit, whether the tree was changed, a checksum of the files themselves.

The commit is asked of git where the package lies in a checkout. A copy without `.git`, as `ray job submit` unpacks one,
cannot say it; then the environment does (EMBINV_COMMIT, which the image sets), or what pip noted of an installation
from a repository, or nobody. The checksum tells two such copies apart, or a changed tree from another.
"""

import hashlib
import json
import os
import subprocess
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

VARIABLE = "EMBINV_COMMIT"
UNKNOWN = "unknown"
PACKAGES = ("embinv", "jobs", "serve_app")
GIT_SECONDS = 20.0


def root() -> Path:
    """The folder that the running package lies in: the checkout, if it is one."""
    return Path(__file__).resolve().parents[2]


def code(folder: Path | None = None) -> dict[str, Any]:
    """What runs, for people to read.

    Args:
        folder: that the packages lie in; None takes `root()`.

    Returns:
        `release`, version of the package; `commit`, or `unknown`; `changed`, whether files differ from that commit,
        null where that cannot be told; `from`, who said so: git, EMBINV_COMMIT, pip, or why nobody could; `files`,
        start of the SHA-256 of all Python files of the packages that lie in the folder.
    """
    folder = folder or root()
    return {"release": release(folder), **commit(folder), "files": files_digest(folder)}


@cache
def files_digest(folder: Path) -> str:
    """Start of the SHA-256 of all Python files, their paths included."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((folder / package).rglob("*.py")):
            own = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(folder).as_posix()} {own}\n".encode())
    return found.hexdigest()[:16]


def release(folder: Path) -> str:
    """Version of the package, or `unknown` where it is not installed but only found on the path."""
    installed = _installed()
    return UNKNOWN if installed is None else installed.version


def commit(folder: Path) -> dict[str, Any]:
    """`commit`, `changed` and `from`, as `code` returns them."""
    why = "no .git, no EMBINV_COMMIT"
    if (folder / ".git").exists():
        try:
            head = _git(folder, "rev-parse", "HEAD").strip()
            return {"commit": head, "changed": _is_changed(_git(folder, "status", "--porcelain")), "from": "git"}
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
            why = f"git failed: {said.splitlines()[0] if said else type(error).__name__}"
    named = os.environ.get(VARIABLE, "").strip()
    if named and named != UNKNOWN:
        return {"commit": named, "changed": None, "from": VARIABLE}
    noted = _noted_by_pip(folder)
    if noted is not None:
        return {"commit": noted, "changed": None, "from": "pip"}
    return {"commit": UNKNOWN, "changed": None, "from": why}


def _is_changed(status: str) -> bool:
    """Whether tracked files differ, or the packages hold files that git does not know; what lies elsewhere is data."""
    lines = [(line[:2], line[3:].strip('"')) for line in status.splitlines()]
    return any(kind != "??" or path.partition("/")[0] in PACKAGES for kind, path in lines)


def _git(folder: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's name another
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS,
        check=True,
        env=own | {"GIT_OPTIONAL_LOCKS": "0"},  # looking at a tree writes nothing into it
    )
    return done.stdout


def _installed() -> Distribution | None:
    try:
        return distribution("embinv")
    except PackageNotFoundError:
        return None


def _noted_by_pip(folder: Path) -> str | None:
    """The commit of an installation from a repository (PEP 610), if that installation is what runs."""
    installed = _installed()
    if installed is None or Path(str(installed.locate_file("embinv"))).resolve() != folder.resolve() / "embinv":
        return None
    try:
        noted = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    return noted.get("vcs_info", {}).get("commit_id")
