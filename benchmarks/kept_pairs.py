"""Pairs that are made once and kept: beside them lie what they were made of and, last of all, `_SUCCESS`.

`PairsRecipe` says how a text became a vector. Which texts, how many of them and how they were chosen and divided is
not in it: that is the `Source`, without which a set of a thousand texts would pass for one of a million.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pairs import require_texts, write_pairs
from embinv.config import Config
from embinv.data.pairs import Pairs
from embinv.data.schema import PairsRecipe, read_recipe, require_same_recipe
from jobs.arguments import write_json
from jobs.outputs import SUCCESS_FILE

SOURCE_FILE = "_source.json"
CHOICES = {"text_column", "min_chars", "max_chars", "min_tokens", "validation", "test", "seed"}
"""The settings of `data` that decide which texts there are and in which split."""


@dataclass(frozen=True)
class Source:
    """What pairs were made of.

    Attributes:
        texts: name of the file, and the start of a digest of all that is in it.
        rows: texts at most; None is all.
        data: the `CHOICES` that were made.
        precision: of the encoder's arithmetic.
    """

    texts: str
    rows: int | None
    data: dict[str, Any]
    precision: str


def source_of(texts: Path, rows: int | None, config: Config) -> Source:
    """What pairs of these texts would be made of.

    Raises:
        ValueError: there is no such file.
    """
    require_texts(texts)
    with texts.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    data = config.data.model_dump(include=CHOICES)
    return Source(f"{texts.name} ({digest})", rows, data, config.encoding.precision)


def are_kept(folder: Path, recipe: PairsRecipe, source: Source | None) -> bool:
    """Whether whole pairs of this recipe and, if one is given, of this source lie in a folder.

    Raises:
        ValueError: pairs lie there that are others, or that cannot be told to be whole.
    """
    if not any(folder.glob("split=*/*.parquet")):
        return False
    if not (folder / SUCCESS_FILE).is_file():
        if not (folder / SOURCE_FILE).is_file():
            raise ValueError(
                f"{folder} holds pairs without {SUCCESS_FILE}, so they may not be whole; let the job that makes them "
                "end, or remove them"
            )
        return False  # ours, and broken off
    require_same_recipe(read_recipe(folder), recipe, folder, "the config")
    if source is not None:
        _require_same_source(folder, source)
    return True


def _require_same_source(folder: Path, wanted: Source) -> None:
    path = folder / SOURCE_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: nothing says which texts its pairs were made of; leave out --texts to use them")
    found, now = (_flat(tree) for tree in (json.loads(path.read_text(encoding="utf-8")), asdict(wanted)))
    differing = [
        f"{name} {found.get(name)!r}, not {value!r}" for name, value in now.items() if found.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"{folder}: its pairs were made with " + "; ".join(differing) + "; remove it, or give another --out"
        )


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """The choices of `data` beside the other fields, under the names that --set gives them."""
    return {key: value for key, value in tree.items() if key != "data"} | {
        f"data.{key}": value for key, value in tree.get("data", {}).items()
    }


def keep_pairs(folder: Path, recipe: PairsRecipe, source: Source, splits: dict[str, Pairs]) -> None:
    """Writes a pairs data set, beside it what it was made of, in place of one that was broken off."""
    (folder / SUCCESS_FILE).unlink(missing_ok=True)
    for old in folder.glob("split=*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SOURCE_FILE, asdict(source))
    write_pairs(folder, recipe, splits)
