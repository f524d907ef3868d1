"""What a redaction takes out of texts before they are encoded: what patterns recognise, and what a corpus labels."""

from collections.abc import Callable, Sequence

from embinv.audit.personal_data import find_spans
from embinv.data.pairs import Pairs
from embinv.defences.redaction import Span
from embinv.metrics.entities import Entities

FindSpans = Callable[[Sequence[str]], Sequence[Sequence[Span]]]
"""Texts in, and of each the stretches of it that are to go."""


def finder_of(parts: Sequence[tuple[Pairs, Entities | None]], languages: Sequence[str]) -> FindSpans:
    """A finder of stretches in the texts of these pairs, and in no others; each text is looked at when it is asked for.

    Args:
        parts: pairs with the labelled entities of each of their texts, where there are any.
        languages: those that are tried on a text whose language is not known.
    """
    langs = {text: lang for pairs, _ in parts for text, lang in zip(pairs.texts, pairs.langs, strict=True)}
    labelled = {
        text: spans_of(text, own)
        for pairs, entities in parts
        if entities is not None
        for text, own in zip(pairs.texts, entities, strict=True)
    }

    def find(texts: Sequence[str]) -> list[list[Span]]:
        found = find_spans(texts, [langs[text] for text in texts], languages)
        recognised = [[(span.start, span.end, span.kind) for span in own] for own in found]
        return [[*own, *labelled.get(text, [])] for text, own in zip(texts, recognised, strict=True)]

    return find


def spans_of(text: str, entities: Sequence[tuple[str, str]]) -> list[Span]:
    """Where (label, surface form), in the order of a text, stand in it."""
    spans, place = [], 0
    for label, surface in entities:
        start = text.find(surface, place)
        if start < 0:  # one that begins before the last one ended
            start = text.find(surface)
        place = start + len(surface)
        spans.append((start, place, label))
    return spans
