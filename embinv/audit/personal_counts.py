"""How much personal data with a form stands in recovered texts, and how much of it is true.

A find is confirmed if its words stand in the original too (`embinv.audit.spacing.stands_in`); without originals nobody
knows, and it is None. Finds in the originals that stand in the recovered text are what was recovered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from embinv.audit.leakage import figure_entry
from embinv.audit.personal_data import Span
from embinv.audit.ratio_sums import RatioSums
from embinv.audit.spacing import stands_in


class Counts(NamedTuple):
    """Of one kind in one text.

    Attributes:
        found: finds in the recovered text.
        confirmed: of these, in the original; None without an original.
        in_original: finds in the original.
        recovered: of these, in the recovered text.
    """

    found: int
    confirmed: int | None
    in_original: int
    recovered: int


def count_personal(
    text: str, spans: Sequence[Span], original: str | None, original_spans: Sequence[Span]
) -> dict[str, Counts]:
    """The finds of one recovered text and of its original, by kind."""
    said, true = _surfaces(text, spans), _surfaces(original or "", original_spans)
    counts = {}
    for kind in sorted({*said, *true}):
        here, there = said.get(kind, []), true.get(kind, [])
        confirmed = None if original is None else sum(stands_in(surface, original) for surface in here)
        counts[kind] = Counts(len(here), confirmed, len(there), sum(stands_in(surface, text) for surface in there))
    return counts


class PersonalSums:
    """The counts of all texts, by kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, _Sums] = {}

    def add(self, counted: Mapping[str, Counts]) -> None:
        """Adds the counts of one text."""
        for kind, counts in counted.items():
            self._by_kind.setdefault(kind, _Sums()).add(counts)

    def summary(self) -> list[dict[str, Any]]:
        """What was counted, the commonest kind first.

        Returns:
            For each kind: kind, found, texts (that hold one), confirmed and unconfirmed (over texts with an original),
            in_originals, recovered, recovery and recovery_se (their ratio over texts; None below two texts).
        """
        rows = [{"kind": kind} | sums.row() for kind, sums in self._by_kind.items()]
        return sorted(rows, key=lambda row: (-row["found"], -row["in_originals"], row["kind"]))


class _Sums:
    """Of one kind."""

    def __init__(self) -> None:
        self._found = self._texts = self._judged = self._found_in_judged = self._confirmed = 0
        self._recovered = RatioSums()

    def add(self, counts: Counts) -> None:
        self._found += counts.found
        self._texts += counts.found > 0
        if counts.confirmed is not None:
            self._judged += 1
            self._found_in_judged += counts.found
            self._confirmed += counts.confirmed
        if counts.in_original:
            self._recovered.add(counts.recovered, counts.in_original)

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "found": self._found,
            "texts": self._texts,
            "confirmed": self._confirmed if self._judged else None,
            "unconfirmed": self._found_in_judged - self._confirmed if self._judged else None,
            "in_originals": self._recovered.whole,
            "recovered": self._recovered.part,
            "recovery": None,
            "recovery_se": None,
        }
        return row | (figure_entry("recovery", self._recovered.figure()) if self._recovered.n >= 2 else {})


def _surfaces(text: str, spans: Sequence[Span]) -> dict[str, list[str]]:
    surfaces: dict[str, list[str]] = {}
    for start, end, kind in spans:
        surfaces.setdefault(kind, []).append(text[start:end].rstrip(" .,;"))
    return surfaces
