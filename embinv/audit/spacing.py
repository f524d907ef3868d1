"""Spaces that a tokenizer put into a text: taken out again, so that patterns and comparisons see what was meant.

Word pieces are written back with a space around each sign: "john @ example. com", "+ 49 30 123", "$ 88, 450". Two
answers to that. `close_up` takes out the spaces inside what looks like an e-mail address, a number, a web or a
hardware address, and says where each character came from; prose keeps its spaces, since "left. in" is no web address.
`stands_in` asks whether words stand in a text whatever the spaces around its signs, its case, its width and its
accents, since uncased vocabularies drop these too. Nothing is recognised here.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import regex

from embinv.audit.public_suffixes import suffix_labels
from embinv.metrics.entities import occurs

_NUMBER = regex.compile(r"(?:\+\s?)?(?:\(\s?)?\d+(?:\s?\))?(?:\s?[.,:/\-]\s?\d+)*")
_HARDWARE = regex.compile(r"(?i)\b(?:[0-9a-f]{2}\s?[:\-]\s?){5}[0-9a-f]{2}\b")
_IPV6 = regex.compile(r"(?i)\b[0-9a-f]{1,4}(?:\s?:\s?[0-9a-f]{0,4}){2,7}(?!\w)")
_MAIL = regex.compile(r"[\w+\-]+(?:\s?[._+\-]\s?\w+){0,3}\s?@\s?(?=\w)")
_SCHEME = regex.compile(r"(?i)\b(?:https?\s?:\s?/\s?/|(?=www\s?\.))\s?")
_LABEL = regex.compile(r"\w+(?:\s?-\s?\w+)*")
_DOT = regex.compile(r"(\s?)\.(\s?)(?=\w)")
_PATH = regex.compile(r"(?:\s?[/?=&#_\-]\s?[\w.%~]*[\w/])*")
_AROUND_SIGNS = regex.compile(r"(?V1)\s+(?=[[^\w\s]_])|(?<=[[^\w\s]_])\s+")


@dataclass(frozen=True)
class ClosedUp:
    """A text without the spaces that a tokenizer put in.

    Attributes:
        text: what is left.
        origins: for each of its characters the place where the given text has it.
    """

    text: str
    origins: tuple[int, ...]

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where characters [start, end) stand in the given text."""
        return self.origins[start], self.origins[end - 1] + 1


def close_up(text: str) -> ClosedUp:
    """Takes out the spaces inside numbers, e-mail addresses, web addresses and hardware addresses."""
    dropped = {place for start, end in _stretches(text) for place in range(start, end) if text[place].isspace()}
    kept = [place for place in range(len(text)) if place not in dropped]
    return ClosedUp("".join(text[place] for place in kept), tuple(kept))


def stands_in(surface: str, text: str) -> bool:
    """Whether the words of a surface form stand in a text, on word boundaries (`embinv.metrics.entities.occurs`)."""
    bare = without_accents(surface)
    return bool(bare) and occurs(bare, without_accents(text))


def without_accents(text: str) -> str:
    """A text without accents and without the spaces around its signs, for comparison."""
    letters = "".join(sign for sign in unicodedata.normalize("NFKD", text) if unicodedata.category(sign) != "Mn")
    return _AROUND_SIGNS.sub("", unicodedata.normalize("NFKC", letters)).strip()


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_NUMBER, _HARDWARE, _IPV6):
        yield from (match.span() for match in pattern.finditer(text))
    for match in _MAIL.finditer(text):
        yield match.start(), _host_end(text, match.end())
    for match in _SCHEME.finditer(text):
        end = _host_end(text, match.end())
        path = _PATH.match(text, end)
        yield match.start(), path.end() if path else end


def _host_end(text: str, start: int) -> int:
    """Where a host's name ends that begins at `start`: as late as its name can be one.

    A dot with a space behind it may be the end of the sentence, so what follows one belongs to the name only while
    the name is none yet ("example. com") or is part of its public suffix ("example. co. uk").
    """
    label = _LABEL.match(text, start)
    if label is None:
        return start
    end, known = label.end(), 0
    place = end
    while (dot := _DOT.match(text, place)) and (label := _LABEL.match(text, dot.end())):
        place = label.end()
        suffix = suffix_labels("".join(text[start:place].split()))
        if not (dot[1] or dot[2]) or known == 0 or suffix > known:
            known, end = max(known, suffix), place
        else:
            break
    return end
