"""Which pairs a run of the encode job makes, so that only the same run goes on in a folder."""

from json import loads
from pathlib import Path
from shutil import rmtree
from typing import Any

from embinv.config import Config
from embinv.data.schema import PairsRecipe, require_same_recipe
from jobs.outputs import STATS_FILE, SUCCESS_FILE

COMPARED = ("texts", "corpus", "data", "encoding")  # beside the recipe


def recipe_of(config: Config) -> PairsRecipe:
    """The recipe that a config asks for; loads the tokenizer."""
    return config.pairs_recipe(config.open_tokenizer())


def run_of(config: Config, recipe: PairsRecipe, texts: Path, corpus: dict[str, Any]) -> dict[str, Any]:
    """All that decides which pairs come out, beside the hardware: the same precision rounds differently elsewhere."""
    return {
        "texts": str(texts),
        "corpus": {"rows": corpus["rows"], "data": corpus["data"], "digest": corpus.get("digest")},
        "data": config.data.model_dump(mode="json", include={"min_tokens", "validation", "test", "correction"}),
        "encoding": {"precision": config.encoding.precision},
        "recipe": recipe.model_dump(mode="json"),
    }


def require_same_run(out: Path, progress: Path, recipe: PairsRecipe, run: dict[str, Any]) -> None:
    """Refuses to mix pairs of two recipes, two corpora or two ways to divide them in one folder.

    Raises:
        ValueError: the folder holds something else; the message names the first field that differs.
    """
    if not out.exists() or not any(out.iterdir()):
        rmtree(progress, ignore_errors=True)  # left by a run whose output is gone: its ids would be skipped
        return
    if (out / SUCCESS_FILE).is_file():
        earlier = loads((out / STATS_FILE).read_text(encoding="utf-8")).get("run")
    elif (progress / "run.json").is_file():
        earlier = loads((progress / "run.json").read_text(encoding="utf-8"))
    else:
        earlier = None
    if earlier is None:
        raise ValueError(f"--out {out}: is not empty and holds no pairs of ours; choose another folder")
    require_same_recipe(PairsRecipe.model_validate(earlier["recipe"]), recipe, out, "the config")
    wanted = _flat({name: run[name] for name in COMPARED})
    found = _flat({name: earlier.get(name, {}) for name in COMPARED})
    differing = [name for name in wanted if name in found and wanted[name] != found[name]]
    if differing:
        name = differing[0]
        raise ValueError(
            f"--out {out}: was made with {name} = {found[name]!r}, not {wanted[name]!r}; choose another folder, or "
            "give --overwrite to make it anew"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as `section.key: value`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
