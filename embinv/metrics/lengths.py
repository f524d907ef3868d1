"""How well a text's length is recovered, in content tokens (those before EOS). What the tokens are plays no part."""

from embinv.metrics.figures import Figure, mean_figure
from embinv.metrics.tokens import Texts


def length_error(originals: Texts, recovered: Texts) -> Figure:
    """Mean absolute difference between the lengths of recovered and original text, in content tokens.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.

    Raises:
        ValueError: fewer than two texts, or different counts.
    """
    return mean_figure([float(abs(difference)) for difference in _differences(originals, recovered)])


def length_bias(originals: Texts, recovered: Texts) -> Figure:
    """Mean difference of lengths, recovered less original, in content tokens; above 0 what is recovered is too long.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.

    Raises:
        ValueError: fewer than two texts, or different counts.
    """
    return mean_figure([float(difference) for difference in _differences(originals, recovered)])


def _differences(originals: Texts, recovered: Texts) -> list[int]:
    return [len(y) - len(x) for x, y in zip(originals, recovered, strict=True)]
