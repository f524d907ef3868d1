"""How much personal data with a form stands in recovered texts, and how much of it is true.

A find is confirmed if its words stand in the original too (`embinv.audit.spacing.stands_in`); without originals nobody
knows, and it is None. Finds in the originals that stand in the recovered text are what was recovered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from embinv.audit.leakage import figure_entry
from embinv.audit.personal_data import Span
from embinv.audit.spacing import stands_in
from embinv.metrics.figures import ratio_figure


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


def personal_summary(tallies: Iterable[Mapping[str, Counts]]) -> list[dict[str, Any]]:
    """Over all texts, by kind, the commonest first.

    Args:
        tallies: of each text with a find; texts without one may be missing.

    Returns:
        For each kind: kind, found, texts (that hold one), confirmed and unconfirmed (over texts with an original),
        in_originals, recovered, recovery and recovery_se (their ratio over texts; None below two texts).
    """
    by_kind: dict[str, list[Counts]] = {}
    for tally in tallies:
        for kind, counts in tally.items():
            by_kind.setdefault(kind, []).append(counts)
    rows = [{"kind": kind} | _row(counts) for kind, counts in by_kind.items()]
    return sorted(rows, key=lambda row: (-row["found"], -row["in_originals"], row["kind"]))


def _row(counts: Sequence[Counts]) -> dict[str, Any]:
    judged = [each for each in counts if each.confirmed is not None]
    true = [each for each in counts if each.in_original]
    confirmed = sum(each.confirmed or 0 for each in judged)
    row: dict[str, Any] = {
        "found": sum(each.found for each in counts),
        "texts": sum(each.found > 0 for each in counts),
        "confirmed": confirmed if judged else None,
        "unconfirmed": sum(each.found for each in judged) - confirmed if judged else None,
        "in_originals": sum(each.in_original for each in true),
        "recovered": sum(each.recovered for each in true),
        "recovery": None,
        "recovery_se": None,
    }
    if len(true) >= 2:
        row |= figure_entry("recovery", ratio_figure([e.recovered for e in true], [e.in_original for e in true]))
    return row


def _surfaces(text: str, spans: Sequence[Span]) -> dict[str, list[str]]:
    surfaces: dict[str, list[str]] = {}
    for start, end, kind in spans:
        surfaces.setdefault(kind, []).append(text[start:end].rstrip(" .,;"))
    return surfaces
