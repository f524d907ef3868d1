"""Which pairs a run of the encode job makes, so that only the same run goes on in a folder."""

from pathlib import Path
from typing import Any

from embinv.config import Config
from embinv.data.schema import PairsRecipe, require_same_recipe
from jobs.same_run import earlier_run, require_same_settings
from jobs.staging import shown

COMPARED = ("texts", "corpus", "data", "encoding")  # beside the recipe


def recipe_of(config: Config) -> PairsRecipe:
    """The recipe that a config asks for; loads the tokenizer."""
    return config.pairs_recipe(config.open_tokenizer())


def run_of(config: Config, recipe: PairsRecipe, texts: Path, corpus: dict[str, Any]) -> dict[str, Any]:
    """All that decides which pairs come out, beside the hardware: the same precision rounds differently elsewhere."""
    return {
        "texts": shown(texts),
        "corpus": {"rows": corpus["rows"], "data": corpus["data"], "digest": corpus.get("digest")},
        "data": config.data.model_dump(mode="json", include={"min_tokens", "validation", "test", "correction"}),
        "encoding": {"precision": config.encoding.precision},
        "recipe": recipe.model_dump(mode="json"),
    }


def require_same_run(out: Path, recipe: PairsRecipe, run: dict[str, Any]) -> None:
    """Refuses to mix pairs of two recipes, two corpora or two ways to divide them in one folder.

    Raises:
        ValueError: the folder holds something else; the message names the first field that differs.
    """
    earlier = earlier_run(out, "pairs", "texts")
    if earlier is None:
        return
    require_same_recipe(PairsRecipe.model_validate(earlier["recipe"]), recipe, out, "the config")
    earlier["data"] = {"correction": 0.0, **earlier.get("data", {})}  # before there was such a share
    found, wanted = ({name: each.get(name, {}) for name in COMPARED} for each in (earlier, run))
    require_same_settings(out, found, wanted)
