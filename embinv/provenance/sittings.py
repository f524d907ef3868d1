"""How an output was made: provenance.json, one entry for each sitting, so that a run that was resumed says each.

    about       what this file is
    sittings    the first at the top; each holds
        job, command            what was run, as it was given, secrets masked
        began, ended            UTC; null: it is running, or was killed
        code                    release, commit, whether the tree was changed, checksum of the files
        versions, machine       of the process that the command started
        cluster                 hosts, CPUs, GPUs and accelerators of the Ray cluster; null without one
        seeds, settings         all of them
        differs                 what of code, versions, machine and cluster is not as in the sitting before

The file is for people. No program decides anything by it, and files that promise the same bytes for the same input do
not hold it: times and hosts stand here alone.
"""

import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embinv.data.folders import whole_file
from embinv.provenance.code import code
from embinv.provenance.concealing import concealed_tree, concealed_words
from embinv.provenance.machine import machine, versions

PROVENANCE_FILE = "provenance.json"
ABOUT = "how this was made, a sitting after the other; for people to read, nothing is decided by it"
COMPARED = ("code", "versions", "machine", "cluster")
TOLD = ("versions.", "code.commit")  # of these a change is said at once
log = logging.getLogger(__name__)


def new_sitting(
    job: str,
    settings: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """An entry for what begins now.

    Args:
        job: as a person would call it, such as jobs/train.py.
        settings: all of them, as JSON has them.
        cluster: what the job runs on beside this process; None without a cluster.
        command: words of the command line; None takes those of this process.
    """
    shown = concealed_tree(settings or {})
    return {
        "job": job,
        "command": shlex.join(concealed_words(sys.argv if command is None else command)),
        "began": _now(),
        "ended": None,
        "code": code(),
        "versions": versions(),
        "machine": machine(),
        "cluster": None if cluster is None else dict(cluster),
        "seeds": seeds_in(shown),
        "settings": shown,
    }


def with_sitting(earlier: str | None, sitting: Mapping[str, Any]) -> str:
    """The text of a provenance file with one more sitting.

    Args:
        earlier: text of the file so far; None where there is none. One that cannot be read is kept as it is, under
            `unreadable`.
        sitting: to add.
    """
    tree = _tree(earlier)
    sittings = tree["sittings"]
    added = dict(sitting)
    if sittings:
        differs = differences(sittings[-1], sitting)
        added["differs"] = differs
        changed = [f"{name} {before} -> {now}" for name, (before, now) in differs.items() if name.startswith(TOLD)]
        if changed:
            log.info("since the sitting before: %s", ", ".join(changed))
    return _text({**tree, "sittings": [*sittings, added]})


def with_end(earlier: str, job: str) -> str:
    """The text of a provenance file whose last sitting of a job has ended now; as it was where it has none."""
    tree = _tree(earlier)
    for sitting in reversed(tree["sittings"]):
        if sitting.get("job") == job:
            sitting["ended"] = _now()
            return _text(tree)
    return earlier


def begin_sitting(
    path: Path,
    job: str,
    settings: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> None:
    """Adds a sitting to a provenance file, which is made with its folder where it is not there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, with_sitting(read_provenance(path), new_sitting(job, settings, cluster)))


def end_sitting(path: Path, job: str) -> None:
    """Notes that the last sitting of a job came to its end; nothing is done where the file is gone."""
    earlier = read_provenance(path)
    if earlier is not None:
        _write(path, with_end(earlier, job))


def read_provenance(path: Path) -> str | None:
    """The text of a provenance file, to be copied; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What two sittings ran on: `name: [before, now]` for what is not the same."""
    ours, theirs = (dict(_flat(each, COMPARED)) for each in (before, now))
    names = dict.fromkeys([*ours, *theirs])
    return {name: [ours.get(name), theirs.get(name)] for name in names if ours.get(name) != theirs.get(name)}


def seeds_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that is called `seed`, by `section.key`."""
    return {name: value for name, value in _flat(settings, settings) if name.rpartition(".")[2] == "seed"}


def _flat(tree: Mapping[str, Any], names: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in names:
        value = tree.get(name)
        if isinstance(value, Mapping):
            found += [(f"{name}.{key}", each) for key, each in _flat(value, value)]
        else:
            found.append((name, value))
    return found


def _tree(text: str | None) -> dict[str, Any]:
    """What a file holds, or an empty one."""
    empty: dict[str, Any] = {"about": ABOUT, "sittings": []}
    if text is None:
        return empty
    try:
        tree = json.loads(text)
        if isinstance(tree, dict) and all(isinstance(each, dict) for each in tree["sittings"]):
            return {"about": ABOUT, **tree}
    except (ValueError, KeyError, TypeError):
        pass
    return {**empty, "unreadable": text}


def _text(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=1, ensure_ascii=False, default=str) + "\n"


def _write(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
