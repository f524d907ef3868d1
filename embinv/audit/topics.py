"""What the recovered texts are about: groups of texts with the same words, and how many of each give themselves away.

TF-IDF over words, then k-means in small batches (scikit-learn); the same seed gives the same groups. A group is named
by the words that set it apart, of which only those are told that at least k texts hold and that may be shown. Groups
are found by words alone, so that texts of two languages seldom share one.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from embinv.metrics.characters import words

TERMS = 6
MOST_WORDS = 20_000
IN_MOST = 0.8  # a word that more of the texts hold says nothing of a group


def find_topics(
    texts: Sequence[str], given_away: np.ndarray, groups: int, k: int, seed: int, may_show: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Divides texts into groups.

    Args:
        texts: N recovered texts; those without a word that k texts hold are in no group.
        given_away: [N] how surely each is given away, NaN where it is not known.
        groups: how many there are at most.
        k: texts that must hold a word.
        seed: of the groups.
        may_show: whether a word may be told.

    Returns:
        For each group, the largest first: terms, n, share (of all texts), given_away and given_away_se (mean over its
        texts for which it is known; None if it is for fewer than two). Empty if no word is common enough.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=cast(Any, _telling_words), min_df=k, max_df=IN_MOST, max_features=MOST_WORDS)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # no word is in k texts and not in nearly all of them
        return []
    filled = np.flatnonzero(np.asarray(matrix.sum(axis=1)).ravel() > 0)
    if len(filled) < 2 * k:
        return []
    count = min(groups, len(filled) // k)
    means = MiniBatchKMeans(count, random_state=seed, n_init=cast(Any, 3), batch_size=1024).fit(matrix[filled])
    names = np.array(vectorizer.get_feature_names_out())
    overall = np.asarray(matrix[filled].mean(axis=0)).ravel()
    topics = []
    for number in range(count):
        rows = filled[means.labels_ == number]
        if len(rows) < k:  # few texts could be told by their words
            continue
        weights = np.asarray(matrix[rows].mean(axis=0)).ravel()
        order = np.lexsort((names, -(weights - overall)))
        terms = [
            str(names[place]) for place in order if weights[place] > overall[place] and may_show(str(names[place]))
        ]
        topics.append(
            {"terms": terms[:TERMS], "n": len(rows), "share": len(rows) / len(texts)} | _share(given_away[rows])
        )
    return sorted(topics, key=lambda topic: (-topic["n"], topic["terms"]))


def _telling_words(text: str) -> list[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return [word for word in words(text) if word not in ENGLISH_STOP_WORDS and not any(map(str.isnumeric, word))]


def _share(given_away: np.ndarray) -> dict[str, float | None]:
    known = given_away[~np.isnan(given_away)]
    if len(known) < 2:
        return {"given_away": None, "given_away_se": None}
    return {"given_away": float(known.mean()), "given_away_se": float(known.std(ddof=1) / np.sqrt(len(known)))}
