"""The recovered texts that a leakage report is about: read block by block from the files of the inversion job.

    id            int64 or string
    text          string: what was recovered; null for a vector that could not be inverted, which is only counted
    confidence    float: the decoder's own; orders texts
    probability   float: calibrated probability that at least 90% of the text is right; null where none was calibrated
    metadata      string: a JSON object with the store's other columns; null where it had none

Other columns are not read. Nothing is unpickled. What stands in the texts is looked at elsewhere.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embinv.data.labels import LabelledTexts

BLOCK_ROWS = 4096
NEEDED = ("id", "text")
READ = (*NEEDED, "confidence", "probability", "metadata")


@dataclass(frozen=True)
class Rows:
    """A block of n recovered texts, in the order of the files.

    Attributes:
        ids: whole numbers or strings.
        texts: what was recovered.
        confidences: [n] float64, NaN where there is none.
        probabilities: [n] float64, NaN where none was calibrated.
        originals: the true texts, None where a row has none.
        langs: language codes, None where a row has none.
        entities: labelled entities of each original as (kind, surface form); None where no labels were given.
        in_column: how many originals the text column gave.
        without_text: rows of the files that stand in none of these, since they have no text.
    """

    ids: list[int | str]
    texts: list[str]
    confidences: np.ndarray
    probabilities: np.ndarray
    originals: list[str | None]
    langs: list[str | None]
    entities: list[list[tuple[str, str]]] | None = None
    in_column: int = 0
    without_text: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def recovered_files(recovered: Sequence[Path]) -> list[Path]:
    """Parquet files among files and folders, those of a folder by name; what begins with a dot or _ is left out.

    Raises:
        ValueError: a path is missing, or none of them holds a Parquet file.
    """
    files: list[Path] = []
    for path in map(Path, recovered):
        if not path.exists():
            raise ValueError(f"--recovered {path}: there is no such file; give what the inversion job wrote")
        inside = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        files += [
            each for each in inside if each == path or not any(p[0] in "._" for p in each.relative_to(path).parts)
        ]
    if not files:
        raise ValueError(
            f"--recovered {', '.join(map(str, recovered))}: holds no *.parquet; give what the inversion job wrote"
        )
    return files


def count_rows(files: Sequence[Path]) -> int:
    """Rows of all files, from their footers.

    Raises:
        ValueError: a file is no Parquet file, or lacks a column.
    """
    total = 0
    for path in files:
        with _open(path) as file:
            total += file.metadata.num_rows
    return total


def read_rows(
    files: Sequence[Path], text_column: str | None, labels: Path | None = None, block_rows: int = BLOCK_ROWS
) -> Iterator[Rows]:
    """Reads recovered texts, with the originals and labels that there are.

    Args:
        files: of `recovered_files`.
        text_column: the store's column with the original text, among a row's metadata; None for none.
        labels: folder of a corpus whose ids the rows have: its spans are the labelled entities, and its texts the
            originals where no column has them.
        block_rows: rows in a block at most.

    Raises:
        ValueError: a file is damaged, metadata is no JSON object, or `labels` is not the corpus of these ids; the
            message names the place.
    """
    corpus = None if labels is None else LabelledTexts(labels)
    for path in files:
        with _open(path) as file:
            columns = [name for name in READ if name in file.schema_arrow.names]
            try:
                for batch in file.iter_batches(block_rows, columns=columns):
                    yield _labelled(_rows(batch, path, text_column), corpus)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"{path}: is damaged ({_first_line(error)}); run the inversion job again, which writes it anew"
                ) from error


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as Parquet ({_first_line(error)}); give a file that the inversion job wrote"
        ) from error
    missing = [name for name in NEEDED if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]}; give a file that the inversion job wrote")
    return file


def _rows(batch: pa.RecordBatch, path: Path, text_column: str | None) -> Rows:
    whole = batch.num_rows
    batch = batch.filter(batch.column("text").is_valid())
    found = {name: batch.column(name) for name in batch.schema.names}
    n = batch.num_rows
    originals: list[str | None] = [None] * n
    langs: list[str | None] = [None] * n
    ids = found["id"].to_pylist()
    for place, line in enumerate(found["metadata"].to_pylist() if "metadata" in found else ()):
        if line is None:
            continue
        columns = _json_object(line, path, ids[place])
        langs[place] = _string(columns.get("lang"))
        originals[place] = None if text_column is None else _string(columns.get(text_column))
    return Rows(
        ids,
        found["text"].to_pylist(),
        _floats(found.get("confidence"), n),
        _floats(found.get("probability"), n),
        originals,
        langs,
        in_column=sum(original is not None for original in originals),
        without_text=whole - n,
    )


def _labelled(rows: Rows, corpus: LabelledTexts | None) -> Rows:
    if corpus is None:
        return rows
    try:
        ids = np.array([int(each) for each in rows.ids], np.int64).tolist()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"--texts {corpus.folder}: labels are found by the ids of a corpus, which are whole numbers of 64 bits, "
            f"and these rows have others ({error}); leave --texts out, or dump the vectors with the corpus's ids"
        ) from error
    originals, entities = corpus.look_up(ids, rows.originals)
    return replace(rows, originals=originals, entities=entities)


def _json_object(line: str, path: Path, number: int | str) -> dict[str, Any]:
    try:
        columns = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}: metadata of id {number} is no JSON ({error}); run the inversion job again"
        ) from error
    if not isinstance(columns, dict):
        raise ValueError(f"{path}: metadata of id {number} is no JSON object; run the inversion job again")
    return columns


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _floats(column: pa.Array | None, n: int) -> np.ndarray:
    if column is None:
        return np.full(n, np.nan)
    return np.array(column.cast(pa.float64()).to_pylist(), dtype=np.float64)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
