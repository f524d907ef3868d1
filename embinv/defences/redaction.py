"""Labelled stretches of a text give way to their label, before the text is encoded: "[PERSON] owes [AMOUNT]".

The one defence here that takes something out of the text, and not out of its vector. What is to go is given; nothing
is recognised here.
"""

from collections.abc import Iterable, Sequence

Span = tuple[int, int, str]
"""(start, end, label): characters [start, end) of a text."""


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with [LABEL] in place of each span.

    Spans that overlap go together, under the label of the longest of them, of equals the first. Such that only touch
    stay two.

    Raises:
        ValueError: a span is empty, or does not lie in the text.
    """
    spans = list(spans)
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"a span of {label} is [{start}, {end}), but the text has {len(text)} characters; give its own spans"
            )
    parts, place = [], 0
    for start, end, label in merged(spans):
        parts += [text[place:start], f"[{label}]"]
        place = end
    return "".join([*parts, text[place:]])


def redact_all(texts: Sequence[str], spans: Sequence[Iterable[Span]]) -> list[str]:
    """`redact` of each text.

    Raises:
        ValueError: there are not as many lists of spans as texts, or see `redact`.
    """
    if len(texts) != len(spans):
        raise ValueError(f"spans of {len(spans)} texts were given for {len(texts)}; give a list for each text")
    return [redact(text, own) for text, own in zip(texts, spans, strict=True)]


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, with those that overlap as one."""
    groups: list[list[Span]] = []
    reach = 0
    for span in sorted(spans, key=lambda each: each[:2]):
        if groups and span[0] < reach:
            groups[-1].append(span)
        else:
            groups.append([span])
            reach = span[1]
        reach = max(reach, span[1])
    return [
        (
            min(start for start, _, _ in group),
            max(end for _, end, _ in group),
            max(group, key=lambda each: each[1] - each[0])[2],
        )
        for group in groups
    ]
