"""Metrics over token ids: how much of a text was recovered, counted on its content tokens only.

Content tokens are those before EOS. Every figure comes with n, the number of texts, and a standard error over
texts. A metric that cannot be computed raises.
"""

from collections import Counter
from collections.abc import Sequence

from embinv.metrics.figures import Figure, mean_figure, ratio_figure

Texts = Sequence[Sequence[int]]


def token_accuracy(originals: Texts, recovered: Texts) -> Figure:
    """Share of the originals' content tokens that stand at the same place in the recovered text.

    A ratio over all tokens of all texts, see `ratio_figure`.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without tokens.
    """
    correct = [sum(a == b for a, b in zip(x, y, strict=False)) for x, y in zip(originals, recovered, strict=True)]
    lengths = [len(x) for x in originals]
    if len(lengths) < 2 or min(lengths) == 0:
        raise ValueError("token accuracy needs at least 2 texts, each with a content token")
    return ratio_figure(correct, lengths)


def exact_match(originals: Texts, recovered: Texts) -> Figure:
    """Share of texts recovered to the last token, their length included."""
    return mean_figure([float(list(x) == list(y)) for x, y in zip(originals, recovered, strict=True)])


def token_f1(originals: Texts, recovered: Texts) -> Figure:
    """Mean F1 between the texts' bags of tokens: what was recovered wherever it stands."""
    return mean_figure([bag_f1(x, y) for x, y in zip(originals, recovered, strict=True)])


def bag_f1(original: Sequence[int], recovered: Sequence[int]) -> float:
    """F1 between two bags of tokens, not both of them empty."""
    shared = (Counter(original) & Counter(recovered)).total()
    return 2 * shared / (len(original) + len(recovered))
