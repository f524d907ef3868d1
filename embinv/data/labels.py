"""The personal data that texts are labelled with: from the `spans` of a corpus to the entities of its texts.

A corpus labels stretches of its own texts, by character. A pair's text is what the decoder's tokenizer left of such a
text: cut at the end, and with many tokenizers not a prefix of it either. WordPiece lowers case, strips accents, parts
Hangul into letters and moves spaces; SentencePiece brings characters to NFKC; both write one token for what they do
not know. So a span is carried over: both texts are folded (NFKD, casefolded, without spaces, marks and invisible
characters), the pair's is laid along the corpus's, and a span stays if all its characters lie there, side by side. The
surface form is what the pair's text has in that place, since that is what a decoder can write.

A span that begins or ends inside a word is widened to the whole word, as far as the pair's text has it: case endings
and particles are written onto names in Korean, Russian and Arabic, and `metrics/entities.py`, for which these entities
are, finds whole words only. What this does not do: recognise anything that is not labelled.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as pads

from embinv.metrics.characters import is_inside_word

_UNSEEN = frozenset("Zs Zl Zp Mn Me Cc Cf".split())  # Unicode categories: spaces, marks, invisible characters


def read_entities(texts: Path, ids: Sequence[int], owns: Sequence[str]) -> list[list[tuple[str, str]]] | None:
    """The labelled entities that lie wholly within texts, such as those of pairs.

    Args:
        texts: folder that jobs/corpus.py made, of the texts that these come from.
        ids: [N] of the corpus's texts, in any order.
        owns: [N] what was left of each.

    Returns:
        [N] the entities of each text as (label, surface form), in the order of the text: none where nobody labelled
        it, or where it was cut before the first. None if the corpus labels nothing in these texts.

    Raises:
        ValueError: `texts` holds no corpus, or not that of these ids, or spans that do not lie in their text.
    """
    numbers = [int(number) for number in ids]
    rows = _read_rows(texts, numbers)
    if not any(spans for _, spans in rows.values()):
        return None
    found = []
    for number, own in zip(numbers, owns, strict=True):
        text, spans = rows[number]
        for start, end, _ in spans:
            if not 0 <= start < end <= len(text):
                raise ValueError(
                    f"{texts}: a span of id {number} is [{start}, {end}), but its text has {len(text)} characters; "
                    "make the corpus anew with jobs/corpus.py --overwrite"
                )
        found.append(entities_within(text, own, spans))
    return found


def read_texts(texts: Path, ids: Sequence[int]) -> list[str]:
    """The corpus's own texts of N ids, in their order.

    Raises:
        ValueError: `texts` holds no corpus, or not that of these ids.
    """
    numbers = [int(number) for number in ids]
    rows = _read_rows(texts, numbers)
    return [rows[number][0] for number in numbers]


def entities_within(text: str, own: str, spans: Iterable[tuple[int, int, str]]) -> list[tuple[str, str]]:
    """The entities of a text that lie wholly within what a tokenizer left of it.

    Args:
        text: as it was labelled.
        own: what was left.
        spans: (start, end, label), characters [start, end) of `text`.

    Returns:
        (label, surface form in `own`), in the order of the text.
    """
    ordered = sorted(spans)
    if not ordered:
        return []
    if text.startswith(own):
        places = [(start, end) if end <= len(own) else None for start, end, _ in ordered]
    else:
        places = _carried_over(text, own, [(start, end) for start, end, _ in ordered])
    return [
        (label, surface)
        for (_, _, label), place in zip(ordered, places, strict=True)
        if place is not None and (surface := _whole_words(own, *place).strip())
    ]


def _read_rows(texts: Path, ids: Sequence[int]) -> dict[int, tuple[str, list[tuple[int, int, str]]]]:
    """Text and spans by id; no spans where nobody labelled a text.

    Raises:
        ValueError: the folder holds no corpus, lacks one of the ids, or cannot be read.
    """
    files = sorted(texts.glob("*.parquet"))
    try:
        corpus = pads.dataset(files, format="parquet") if files else None
        if corpus is None or not {"id", "text"} <= set(corpus.schema.names):
            raise ValueError(
                f"{texts}: holds no texts (*.parquet with columns id and text); give the folder that jobs/corpus.py "
                "made, or make one with it"
            )
        columns = [name for name in ("id", "text", "spans") if name in corpus.schema.names]
        wanted = pads.field("id").isin(pa.array(ids, pa.int64()))
        found = corpus.to_table(columns=columns, filter=wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{texts}: cannot be read ({error}); make the corpus anew with jobs/corpus.py --overwrite"
        ) from error
    rows = {
        row["id"]: (row["text"], [(span["start"], span["end"], span["label"]) for span in row.get("spans") or []])
        for row in found
    }
    missing = [number for number in ids if number not in rows]
    if missing:
        raise ValueError(
            f"{texts}: lacks {len(missing):,} of the {len(ids):,} texts, such as id {missing[0]}; give the folder "
            "that these texts come from (--texts of jobs/encode.py)"
        )
    return rows


class _Folded(NamedTuple):
    """A text without what tokenizers change, and the place in the text where each character came from."""

    chars: str
    origins: list[int]


def _fold(text: str) -> _Folded:
    folded = [_fold_char(char) for char in text]
    return _Folded("".join(folded), [place for place, chars in enumerate(folded) for _ in chars])


@lru_cache(maxsize=1 << 16)
def _fold_char(char: str) -> str:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(each for each in folded if unicodedata.category(each) not in _UNSEEN)


def _carried_over(text: str, own: str, stretches: list[tuple[int, int]]) -> list[tuple[int, int] | None]:
    """Where stretches of `text` lie in `own`; None for one that is not whole there."""
    source, target = _fold(text), _fold(own)
    beside = _lay_along(source.chars, target.chars)
    places: list[tuple[int, int] | None] = []
    for start, end in stretches:
        there = [place for place, origin in zip(beside, source.origins, strict=True) if start <= origin < end]
        whole = bool(there) and there[0] >= 0 and there == list(range(there[0], there[0] + len(there)))
        places.append((target.origins[there[0]], target.origins[there[-1]] + 1) if whole else None)
    return places


def _lay_along(source: str, target: str) -> list[int]:
    """For each character of `source` its place in `target`, -1 for none.

    The target is a beginning of the source, but for characters that a tokenizer did not know.
    """
    pairs = enumerate(zip(source, target, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(source), len(target)))
    beside = [*range(same), *[-1] * (len(source) - same)]
    if same < len(target):
        matcher = SequenceMatcher(None, source[same:], target[same:], autojunk=False)
        for block in matcher.get_matching_blocks():
            first = same + block.a
            beside[first : first + block.size] = range(same + block.b, same + block.b + block.size)
    return beside


def _whole_words(own: str, start: int, end: int) -> str:
    """The stretch, widened to where its words begin and end, and to the marks on its last letter."""
    while is_inside_word(own, start):
        start -= 1
    while is_inside_word(own, end):
        end += 1
    return own[start:end]
