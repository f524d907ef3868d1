"""What config.json of a checkpoint meant in each of its formats.

    1   until November 2026: `family` may be left out, and is then told by the fields of `model`; who wrote it is not
        said; the file with the form of the training vectors came later, and so did `training.train_ids`
    2   `family` and `written_by` are always there

Both are read, see `embinv.data.versions`. Only `embinv upgrade` changes a folder, see `upgrading`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from embinv.data.versions import Tree, Upgrade, brought_up

FORMAT_VERSION = 2

Family = Literal["mdlm", "backbone", "t5", "mdlm_corrector", "t5_corrector"]


def read_as_newest(tree: Any, where: str) -> Tree:
    """config.json of any format that is known, as of the newest.

    Raises:
        ValueError: it is of another one.
    """
    return brought_up(tree, "format_version", UPGRADES, FORMAT_VERSION, where)


def family_by_fields(model: Any) -> Family:
    """The family of an architecture's JSON, by the fields that only one has."""
    fields = model if isinstance(model, dict) else {}
    corrects = "corrects" in fields
    if "start_id" in fields:  # others read nothing first
        return "t5_corrector" if corrects else "t5"
    if corrects:
        return "mdlm_corrector"
    return "backbone" if "backbone" in fields else "mdlm"


def from_1(tree: Tree) -> Tree:
    """Format 1 as format 2."""
    return {**tree, "family": tree.get("family", family_by_fields(tree.get("model"))), "written_by": None}


UPGRADES: Mapping[int, Upgrade] = {1: from_1}
