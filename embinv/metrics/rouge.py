"""ROUGE-1 and ROUGE-L (Lin 2004, sections 2 and 3.1): F-measures over words, for any script.

Words are those of characters.py: single characters in scripts without spaces, which the usual implementation (the
`rouge-score` library) drops altogether, as it keeps a-z and 0-9 only. Case and width of characters do not count.
Nothing is stemmed. On plain English the figures are that library's.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from embinv.metrics.characters import words
from embinv.metrics.figures import Figure, mean_figure


def rouge_1(originals: Sequence[str], recovered: Sequence[str]) -> Figure:
    """Mean F-measure in [0, 1] between the texts' bags of words, wherever the words stand.

    Args:
        originals: n true texts.
        recovered: n recovered texts; one without a word scores 0.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without a word.
    """
    return _mean_f_measure(lambda x, y: (Counter(x) & Counter(y)).total(), originals, recovered)


def rouge_l(originals: Sequence[str], recovered: Sequence[str]) -> Figure:
    """Mean F-measure in [0, 1] of the words' longest common subsequence: what was recovered in the right order.

    Precision and recall weigh the same. A text is taken whole, not by sentences (that is ROUGE-Lsum).

    Args:
        originals: n true texts.
        recovered: n recovered texts; one without a word scores 0.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without a word.
    """
    from rapidfuzz.distance import LCSseq

    return _mean_f_measure(LCSseq.similarity, originals, recovered)


def _mean_f_measure(
    shared: Callable[[list[str], list[str]], int], originals: Sequence[str], recovered: Sequence[str]
) -> Figure:
    scores = []
    for row, (original, said) in enumerate(zip(originals, recovered, strict=True)):
        true, found = words(original), words(said)
        if not true:
            raise ValueError(f"original {row} has no word; its ROUGE does not exist")
        scores.append(2 * shared(true, found) / (len(true) + len(found)))  # harmonic mean of precision and recall
    return mean_figure(scores)
