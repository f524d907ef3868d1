"""Texts from outside as HTML: escaped, with control characters shown, and with the words marked in which two differ.

Words are those of `embinv.metrics.characters`, so that a script without spaces is compared letter by letter, and so
are case, width and composition, which make no difference.
"""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape

from embinv.metrics.characters import is_inside_word, normal_form

LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
BIDI_CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Embeddings, overrides and isolates, which could turn round what stands after a text."""


def visible(value: object) -> str:
    """Text for HTML: escaped, and printable."""
    return escape(printable(value))


def printable(value: object) -> str:
    """Text with a control character or a lone surrogate shown by its number."""
    text = str(value).replace("\r\n", "\n")
    return "".join(f"⟨U+{ord(sign):04X}⟩" if _is_control(sign) else sign for sign in text)


def _is_control(sign: str) -> bool:
    return sign in BIDI_CONTROLS or (unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\n\t")


def bdi(html: str, lang: str | None) -> str:
    """HTML that keeps its direction to itself, in a language if its name is one that HTML knows how to name."""
    tag = f' lang="{lang}"' if LANGUAGE_TAG.fullmatch(lang or "") else ""
    return f"<bdi{tag}>{html}</bdi>"


def marked(original: str, recovered: str) -> tuple[str, str]:
    """Both as HTML, the words that the other has not in <del> and <ins>; signs that belong to no word stand alone."""
    left, right = (_pieces(text.replace("\r\n", "\n")) for text in (original, recovered))
    words = [[place for place, piece in enumerate(pieces) if not piece.isspace()] for pieces in (left, right)]
    keys = [[normal_form(pieces[place]) for place in at] for pieces, at in zip((left, right), words, strict=True)]
    same = SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks()
    first = {words[0][block.a + step] for block in same for step in range(block.size)}
    second = {words[1][block.b + step] for block in same for step in range(block.size)}
    return _with_marks(left, first, "del"), _with_marks(right, second, "ins")


def _pieces(text: str) -> list[str]:
    """Words, and one by one what lies between them; joined they are the text."""
    cuts = [place for place in range(1, len(text)) if not is_inside_word(text, place)]
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)] if text else []


def _with_marks(pieces: Sequence[str], same: set[int], tag: str) -> str:
    """Neighbours that differ, and the spaces between them, are under one mark."""
    parts, gap, inside = [], "", False
    for place, piece in enumerate(pieces):
        if piece.isspace():
            gap += visible(piece)
            continue
        differs = place not in same
        between = gap if differs == inside else (gap + f"<{tag}>" if differs else f"</{tag}>" + gap)
        parts += [between, visible(piece)]
        gap, inside = "", differs
    return "".join(parts) + (f"</{tag}>" if inside else "") + gap
