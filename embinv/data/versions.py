"""Formats that change: a tree of JSON read as the newest version of its format, through one function for each step.

A format has a number. What an older version meant is said once, by a pure function from version n to n + 1, and every
reader sees the newest. Reading changes nothing on disk. A newer version than this code knows is refused: what its
fields mean cannot be guessed.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Tree = dict[str, Any]
Upgrade = Callable[[Tree], Tree]


def brought_up(
    tree: Any, key: str, upgrades: Mapping[int, Upgrade], newest: int, where: str, written_by: str = "written_by"
) -> Tree:
    """A tree as the newest version of its format.

    Args:
        tree: as it lies on disk; it is not changed.
        key: of its version.
        upgrades: for each older version n the function that makes n + 1 of it.
        newest: the version that this code writes.
        where: the folder or file, for the message.
        written_by: key of the release that wrote it, where newer versions have one.

    Raises:
        ValueError: it has no version, one that is too old or unknown, or one of a newer embinv.
    """
    found = tree.get(key) if isinstance(tree, dict) else None
    known = f"this embinv reads {min([*upgrades, newest])} to {newest}" if upgrades else f"this embinv reads {newest}"
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f"{where}: {key} {found!r} is no number; {known}")
    if found > newest:
        writer = tree.get(written_by)
        wanted = f"embinv {writer} or newer" if isinstance(writer, str) else "the embinv that wrote it, or a newer one"
        raise ValueError(f"{where}: {key} {found}, {known}; it is of a newer release: install {wanted}")
    if found < min([*upgrades, newest]):
        raise ValueError(f"{where}: {key} {found}, {known}; make it anew")
    for number in range(found, newest):
        tree = {**upgrades[number](dict(tree)), key: number + 1}
    return tree


def this_release() -> str:
    """The release that runs, or `unknown` where embinv is not installed but only found on the path."""
    try:
        return version("embinv")
    except PackageNotFoundError:
        return "unknown"
