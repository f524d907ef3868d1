"""A leakage report's rate of recovered entities, counted again from the raw outputs; prints one JSON line.

Counted twice: from entities.parquet as it is, and from the recovered texts, the originals and the spans of the labelled
corpus. None of the report's own code is used, so that a slip in it cannot hide in its own check; the difference must
be 0.

    python benchmarks/audit_recount.py --report runs/audit --recovered runs/recovered --labels runs/texts \\
        --text-column text
"""

import argparse
import json
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def recount(report: Path, recovered: Path, labels: Path, text_column: str | None) -> dict[str, Any]:
    """The rate three times over, and the greatest difference, in entities and in the rate.

    Args:
        report: folder with audit.json and entities.parquet.
        recovered: a Parquet file of the inversion job, or a folder of them.
        labels: folder of the corpus.
        text_column: the store's column with the originals, as the report was told it; None for the corpus's texts.
    """
    said = json.loads((report / "audit.json").read_text(encoding="utf-8"))["entities"]
    rows = pq.read_table(report / "entities.parquet").to_pylist()
    filed = (sum(row["found"] for row in rows), len(rows))
    raw = count(list(_entities(_rows(recovered), _corpus(labels), text_column)))
    rates = {"report": (said["found"], said["n"]), "entities.parquet": filed, "raw outputs": raw}
    shares = [Fraction(*pair) for pair in rates.values()]
    return {
        **{name: {"found": found, "n": n, "recall": found / n} for name, (found, n) in rates.items()},
        "entities_differ_by": max(n for _, n in rates.values()) - min(n for _, n in rates.values()),
        "difference": float(max(shares) - min(shares)),
        "recall_differs_by": abs(said["recall"] - float(shares[0])),
    }


def count(found: list[bool]) -> tuple[int, int]:
    """How many are there, and of how many."""
    return sum(found), len(found)


def _entities(
    rows: list[dict[str, Any]], corpus: Mapping[int, dict[str, Any]], text_column: str | None
) -> Iterator[bool]:
    """Of each labelled value that the original holds whole, whether the recovered text holds it."""
    for row in rows:
        if row["text"] is None:  # its vector cannot be inverted, and the report leaves it out
            continue
        labelled = corpus[int(row["id"])]
        original = json.loads(row["metadata"] or "{}").get(text_column) if text_column else None
        for span in labelled["spans"] or []:
            surface = whole_words(labelled["text"], span["start"], span["end"])
            if stands(surface, original or labelled["text"]):
                yield stands(surface, row["text"])


def whole_words(text: str, start: int, end: int) -> str:
    """A stretch, widened to the words that it begins and ends in."""
    while 0 < start < len(text) and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while 0 < end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return text[start:end]


def stands(surface: str, text: str) -> bool:
    """Whether a value stands in a text between word boundaries, whatever case, accents and spaces around signs."""
    wanted, said = bare(surface), bare(text)
    places = (place for place in range(len(said)) if said.startswith(wanted, place))
    return bool(wanted) and any(not _joined(said, place) and not _joined(said, place + len(wanted)) for place in places)


def bare(text: str) -> str:
    """Lower case, no accents, one space between words and none around signs."""
    letters = "".join(sign for sign in unicodedata.normalize("NFKD", text) if unicodedata.category(sign) != "Mn")
    words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", letters).casefold()).split()
    joined = ""
    for word in words:
        between = joined and _is_word(joined[-1]) and _is_word(word[0])
        joined += (" " if between else "") + word
    return joined


def _is_word(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign)[0] == "M"


def _joined(text: str, place: int) -> bool:
    return 0 < place < len(text) and _is_word(text[place - 1]) and _is_word(text[place])


def _rows(recovered: Path) -> list[dict[str, Any]]:
    files = sorted(recovered.glob("*.parquet")) if recovered.is_dir() else [recovered]
    return [row for file in files for row in pq.read_table(file, columns=["id", "text", "metadata"]).to_pylist()]


def _corpus(labels: Path) -> dict[int, dict[str, Any]]:
    files = sorted(labels.glob("*.parquet"))
    return {
        row["id"]: row for file in files for row in pq.read_table(file, columns=["id", "text", "spans"]).to_pylist()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--recovered", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--text-column")
    given = parser.parse_args()
    print(json.dumps(recount(given.report, given.recovered, given.labels, given.text_column)))
