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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    rows = LabelledTexts(texts).rows(ids)
    if not any(spans for _, spans in rows):
        return None
    return [entities_within(text, own, spans) for (text, spans), own in zip(rows, owns, strict=True)]


class LabelledTexts:
    """The texts of a corpus and their spans, looked up by id: ids are read once, texts where they are asked for.

    Args:
        folder: that jobs/corpus.py made.

    Raises:
        ValueError: it holds no corpus, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._groups: list[tuple[Path, int]] = []  # files and their row groups
        self._held: tuple[int, pa.Table] | None = None  # the one that was read last
        ids: list[np.ndarray] = []
        with self._reading():
            for path in sorted(folder.glob("*.parquet")):
                with pq.ParquetFile(path) as file:
                    if not {"id", "text"} <= set(file.schema_arrow.names):
                        raise self._no_texts()
                    for group in range(file.num_row_groups):
                        self._groups.append((path, group))
                        ids.append(file.read_row_group(group, columns=["id"])["id"].cast(pa.int64()).to_numpy())
        if not ids:
            raise self._no_texts()
        self._starts = np.cumsum([0, *map(len, ids)])[:-1]
        whole = np.concatenate(ids)
        self._order = np.argsort(whole, kind="stable")
        self._ids = whole[self._order]

    def rows(self, ids: Sequence[int]) -> list[tuple[str, list[tuple[int, int, str]]]]:
        """Text and spans of N ids, in their order; no spans where nobody labelled a text.

        Raises:
            ValueError: it is not the corpus of these ids, spans do not lie in their text, or it cannot be read.
        """
        wanted = np.array(ids, np.int64)
        beside = np.searchsorted(self._ids, wanted)
        lacking = np.flatnonzero(~np.isin(wanted, self._ids))
        if len(lacking):
            raise ValueError(
                f"{self.folder}: lacks {len(lacking):,} of the {len(ids):,} texts, such as id {wanted[lacking[0]]}; "
                "give the folder that these texts come from (--texts of jobs/encode.py)"
            )
        places = self._order[beside]
        groups = np.searchsorted(self._starts, places, side="right") - 1
        found: list[tuple[str, list[tuple[int, int, str]]]] = [("", [])] * len(wanted)
        for group in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == group)
            for place, row in zip(mine.tolist(), self._read(group, places[mine] - self._starts[group]), strict=True):
                spans = [(span["start"], span["end"], span["label"]) for span in row.get("spans") or []]
                found[place] = row["text"], self._lie_within(spans, row)
        return found

    def look_up(
        self, ids: Sequence[int], owns: Sequence[str | None]
    ) -> tuple[list[str | None], list[list[tuple[str, str]]]]:
        """What N texts are, and their entities as `read_entities` has them.

        Args:
            ids: [N] of the corpus's texts.
            owns: [N] what was left of each; None for one that is to be the corpus's own text.

        Raises:
            ValueError: as of `rows`.
        """
        rows = self.rows(ids)
        whole = [text if own is None else own for (text, _), own in zip(rows, owns, strict=True)]
        return [*whole], [entities_within(text, own, spans) for (text, spans), own in zip(rows, whole, strict=True)]

    def _read(self, group: int, places: np.ndarray) -> list[dict[str, Any]]:
        """Rows of a row group, which is kept until another is asked for: blocks often follow one another in one."""
        if self._held is None or self._held[0] != group:
            path, number = self._groups[group]
            with self._reading(), pq.ParquetFile(path) as file:
                columns = [name for name in ("id", "text", "spans") if name in file.schema_arrow.names]
                self._held = group, file.read_row_group(number, columns=columns)
        return self._held[1].take(pa.array(places)).to_pylist()

    def _lie_within(self, spans: list[tuple[int, int, str]], row: dict[str, Any]) -> list[tuple[int, int, str]]:
        size = len(row["text"])
        for start, end, _ in spans:
            if not 0 <= start < end <= size:
                raise ValueError(
                    f"{self.folder}: a span of id {row['id']} is [{start}, {end}), but its text has {size} characters; "
                    "make the corpus anew with jobs/corpus.py --overwrite"
                )
        return spans

    def _no_texts(self) -> ValueError:
        return ValueError(
            f"{self.folder}: holds no texts (*.parquet with columns id and text); give the folder that jobs/corpus.py "
            "made, or make one with it"
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.folder}: cannot be read ({error}); make the corpus anew with jobs/corpus.py --overwrite"
            ) from error


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
