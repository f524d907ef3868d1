"""Whether texts are in the language that they claim, judged by py3langid.

py3langid (a maintained langid.py, Lui and Baldwin 2012) is naive Bayes over byte n-grams, 139 languages, model inside
the wheel, so nothing is downloaded. Its probabilities are softened by the text's length (temperature: the root of the
number of bytes), so one ratio of them serves short and long texts alike: a text disagrees only where another language
is `RATIO` times as probable as its own.

What it does not do: it does not guess a language for texts that have none, and does not judge languages that the model
does not know.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED = "und"  # ISO 639-2: the language is not known

# On 16,521 texts of at least 20 characters in ten languages: at most 0.33 % of a language's texts disagree (and some of
# those are mislabelled), at least 98 % do under a random wrong label. With no margin up to 14 % would (Chinese, read as
# Wu); with 7 up to 0.5 %. The hardest pair is Spanish labelled Portuguese, of which 84 % is seen.
RATIO = 20.0


def disagrees(texts: Sequence[str], langs: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which texts are clearly in another language than they claim.

    The answer for a text depends on that text and its language only, not on the others of the batch.

    Args:
        texts: N texts.
        langs: [N] their languages, ISO 639-1 or -3 as py3langid has them; a region or script after it (`pt-BR`,
            `zh_Hans`) does not count. `und` and languages that the model does not know never disagree.

    Returns:
        [N] mask of the texts that disagree.

    Raises:
        ValueError: py3langid is not installed, or `texts` and `langs` differ in length.
    """
    if len(texts) != len(langs):
        raise ValueError(f"Each text needs its language; got {len(texts)} texts and {len(langs)} languages.")
    identifier = _identifier()
    known = frozenset(identifier.labels)
    mask = np.zeros(len(texts), np.bool_)
    for row, (text, lang) in enumerate(zip(texts, langs, strict=True)):
        own = lang.replace("_", "-").split("-")[0].lower()
        if own not in known:
            continue
        best, probability = identifier.classify(text)
        if best != own:  # ranking all languages takes twice as long, and few texts need it
            mask[row] = dict(identifier.rank(text))[own] * RATIO < probability
    return mask


@cache
def _identifier() -> "LanguageIdentifier":
    """The model, loaded once for a process (half a second)."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError("data.language_check needs py3langid: pip install embinv[langid]") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
