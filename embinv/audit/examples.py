"""The texts that are given away most, for a report: chosen by figures alone, and redacted unless they are revealed."""

from collections.abc import Sequence
from math import isnan
from typing import Any

from embinv.audit.gathered import Gathered
from embinv.audit.masking import mask
from embinv.audit.personal_data import find_spans
from embinv.audit.settings import AuditSettings


def worst_examples(gathered: Gathered, settings: AuditSettings) -> list[dict[str, Any]]:
    """At most `settings.examples` of the sampled rows, the most given away first; of those that look alike one.

    Returns:
        id (None unless it is revealed: it may be somebody's number or address), lang, recovered, original (None without
        one), probability, confidence, token_f1, nearly_right, entities_found and entities, of what is known.
    """
    given, f1, nearly, sure, probabilities = (
        values.tolist()
        for values in (
            gathered.given_away(),
            gathered.comparison.f1,
            gathered.comparison.nearly,
            gathered.confidences,
            gathered.probabilities,
        )
    )
    shown = gathered.words.shown(settings.k)

    def order(each: dict[str, Any]) -> tuple[float, ...]:
        row, found = each["row"], sum(hit.found for hit in each["hits"])
        return (-_known(given[row]), -_known(f1[row]), -float(found), -_known(sure[row]), float(row))

    examples, seen, alike = [], set(), set()
    for each in sorted(gathered.sample, key=order):
        if len(examples) == settings.examples:
            break
        if not each["text"].strip() or each["text"] in seen:
            continue
        seen.add(each["text"])
        row = each["row"]
        texts = [each["text"], *([] if each["original"] is None else [each["original"]])]
        if not settings.reveal:
            spans = find_spans(texts, [each["lang"]] * len(texts), settings.languages)
            texts = mask(texts, spans, each["entities"], shown)
            if texts[0] in alike:
                continue
            alike.add(texts[0])
        examples.append(
            {
                "id": each["id"] if settings.reveal else None,
                "lang": each["lang"],
                "recovered": texts[0],
                "original": _second(texts),
                "probability": _figure(probabilities[row]),
                "confidence": _figure(sure[row]),
                "token_f1": _figure(f1[row]),
                "nearly_right": None if isnan(nearly[row]) else bool(nearly[row]),
                "entities_found": sum(hit.found for hit in each["hits"]) if each["hits"] else None,
                "entities": len(each["hits"]) or None,
            }
        )
    return examples


def _second(texts: Sequence[str]) -> str | None:
    return texts[1] if len(texts) > 1 else None


def _known(value: float) -> float:
    return -1.0 if isnan(value) else value


def _figure(value: float) -> float | None:
    return None if isnan(value) else value
