"""The inverter that a corrector begins as: looked at before workers start, and read by each of them."""

from pathlib import Path

from embinv.checkpoint import Checkpoint, load_checkpoint
from embinv.config import Config
from embinv.data.schema import PairsRecipe, require_same_recipe


def inverter_to_begin_as(config: Config, recipe: PairsRecipe) -> Checkpoint:
    """Loads the checkpoint that `model.inverter` names.

    Args:
        config: of a corrector that begins as an inverter.
        recipe: of the data that it learns from.

    Raises:
        ValueError: it is no checkpoint, a corrector's, of another family than `model.family`, or of other pairs.
    """
    settings = config.model
    assert settings.inverter is not None
    folder = Path(settings.inverter).expanduser()
    try:
        checkpoint = load_checkpoint(folder)
    except ValueError as error:
        raise ValueError(f"model.inverter cannot be read: {error}") from error
    family = checkpoint.config.family
    if family != settings.family:
        raise ValueError(
            f"model.inverter {folder}: is of family {family}, and a corrector of model.family {settings.family} is "
            "asked for; give an inverter of that family, or leave model.inverter out"
        )
    require_same_recipe(checkpoint.config.pairs, recipe, f"model.inverter {folder}", "--data")
    return checkpoint
