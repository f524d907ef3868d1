"""What a leakage report counts while it reads: numbers of every row, and the texts of a sample of them.

Texts are kept of at most `SAMPLE` rows, drawn by seed; of all others only what the report's figures are made of.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embinv.audit.entities import EntityRates, Hit, find_entities
from embinv.audit.leakage import (
    Comparison,
    Tokenize,
    agreement,
    by_comparison,
    by_probability,
    compare,
    figure_entry,
    given_away,
)
from embinv.audit.masking import WordCounts
from embinv.audit.personal_counts import PersonalSums, count_personal
from embinv.audit.personal_data import find_spans
from embinv.audit.rows import Rows
from embinv.metrics.text import sentence_bleu

SAMPLE = 100_000


class Gathered:
    """Filled block by block, in the order of the rows.

    Args:
        total: rows that will come.
        seed: of the sample.
        languages: for texts whose language is not known.
        tokenize: what texts are compared by.

    Attributes:
        rows: with a text.
        without_text: rows that could not be inverted, which count nowhere else.
        originals: texts that the text column gave.
        words: in how many texts each word stands.
        sample: ids, texts, originals, langs, labelled values and hits of the sampled rows, and their row numbers.
    """

    def __init__(self, total: int, seed: int, languages: Sequence[str], tokenize: Tokenize) -> None:
        self._sampled = np.ones(total, dtype=bool)
        if total > SAMPLE:
            self._sampled[:] = False
            self._sampled[np.random.default_rng(seed).choice(total, SAMPLE, replace=False)] = True
        self._languages, self._tokenize = languages, tokenize
        self._probabilities: list[np.ndarray] = []
        self._confidences: list[np.ndarray] = []
        self._comparisons: list[Comparison] = []
        self._entities = EntityRates()
        self._personal = PersonalSums()
        self.rows = 0
        self.without_text = 0
        self.originals = 0
        self.words = WordCounts()
        self.sample: list[dict[str, Any]] = []

    def add(self, rows: Rows) -> list[list[Hit]]:
        """Counts a block; returns its labelled values and whether they were found, none where nothing is labelled."""
        n = len(rows)
        entities = rows.entities or [[] for _ in range(n)]
        hits = find_entities(entities, rows.texts)
        for own in hits:
            self._entities.add(own)
        self._probabilities.append(rows.probabilities)
        self._confidences.append(rows.confidences)
        self._comparisons.append(compare(rows.originals, rows.texts, self._tokenize))
        self.originals += rows.in_column
        self.without_text += rows.without_text
        self._count_personal(rows)
        self.words.add(rows.texts)
        for place, labelled in enumerate(entities):
            if labelled:
                self.words.add_labelled(rows.originals[place] or "", labelled)
            if self._sampled[self.rows + place]:
                self.sample.append(
                    {
                        "row": self.rows + place,
                        "id": rows.ids[place],
                        "text": rows.texts[place],
                        "original": rows.originals[place],
                        "lang": rows.langs[place],
                        "entities": labelled,
                        "hits": hits[place],
                    }
                )
        self.rows += n
        return hits

    def _count_personal(self, rows: Rows) -> None:
        said = find_spans(rows.texts, rows.langs, self._languages)
        true = find_spans([original or "" for original in rows.originals], rows.langs, self._languages)
        for counts in map(count_personal, rows.texts, said, rows.originals, true):
            self._personal.add(counts)

    @property
    def probabilities(self) -> np.ndarray:
        """[n] of all rows, NaN where none was calibrated."""
        return np.concatenate(self._probabilities)

    @property
    def confidences(self) -> np.ndarray:
        """[n] of all rows, NaN where there is none."""
        return np.concatenate(self._confidences)

    @property
    def comparison(self) -> Comparison:
        """Of all rows."""
        parts = self._comparisons
        return Comparison(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("whole", "nearly", "f1")))

    def leakage(self) -> dict[str, Any]:
        """By probability, by comparison and whether both agree; BLEU is of the sample."""
        probabilities, comparison = self.probabilities, self.comparison
        compared = by_comparison(comparison)
        pairs = [(each["original"], each["text"]) for each in self.sample if each["original"]]
        if compared is not None and len(pairs) >= 2:
            bleu = sentence_bleu([original for original, _ in pairs], [text for _, text in pairs])
            compared |= figure_entry("bleu", bleu)
        return {
            "by_probability": by_probability(probabilities),
            "by_comparison": compared,
            "agreement": agreement(probabilities, comparison.nearly),
        }

    def given_away(self) -> np.ndarray:
        """[n] of all rows, see `embinv.audit.leakage.given_away`."""
        return given_away(self.probabilities, self.comparison.nearly)

    def entities(self) -> dict[str, Any] | None:
        """Rates of labelled values; None where nothing is labelled."""
        return self._entities.rates()

    def personal_data(self) -> list[dict[str, Any]]:
        """What was recognised, by kind."""
        return self._personal.summary()
