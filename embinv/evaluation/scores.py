"""texts.parquet: what was recovered of each held-out text and how it scored, beside report.json.

    id, lang, original, recovered     the text
    confidence, probability           what the inverter thought of it; probability is null where none was calibrated
    <figure>.part, <figure>.whole     its share of a figure: the figure is the sum of parts over the sum of wholes

So two reports on the same texts can be compared text by text.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embinv.data.folders import whole_file
from embinv.data.pairs import Pairs
from embinv.inversion import Inversion
from embinv.metrics.bootstrap import Difference, paired_bootstrap
from embinv.metrics.figures import Figure

FILE = "texts.parquet"
PART, WHOLE = ".part", ".whole"


def scores_table(test: Pairs, inversions: Sequence[Inversion], figures: dict[str, Figure]) -> pa.Table:
    """One row for each text; figures that are no sum over texts have no column."""
    columns = {
        "id": pa.array(test.ids, pa.int64()),
        "lang": pa.array(test.langs, pa.string()),
        "original": pa.array(test.texts, pa.string()),
        "recovered": pa.array([inversion.text for inversion in inversions], pa.string()),
        "confidence": pa.array([inversion.confidence for inversion in inversions], pa.float64()),
        "probability": pa.array([inversion.probability for inversion in inversions], pa.float64()),
    }
    for name, figure in figures.items():
        if len(figure.parts) == len(test):
            columns[name + PART] = pa.array(figure.parts, pa.float64())
            columns[name + WHOLE] = pa.array(figure.wholes, pa.float64())
    return pa.table(columns)


def write_scores(folder: Path, scores: pa.Table) -> None:
    """Writes FILE into a folder, whole or not at all."""
    with whole_file(folder / FILE) as partial:
        pq.write_table(scores, partial)


def compare(first: Path, second: Path, resamples: int = 10_000, seed: int = 0) -> dict[str, Difference]:
    """Every figure that both reports have, with the difference over the texts that both measured.

    Args:
        first: a folder with a report.
        second: another one.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: one of them has no texts.parquet, they share no two texts, or one id names two different texts.
    """
    left, right = (_read(folder).sort_by("id") for folder in (first, second))
    common = set(left["id"].to_pylist()) & set(right["id"].to_pylist())
    if len(common) < 2:
        raise ValueError(f"{first} and {second} have {len(common)} text in common; measure both on the same pairs")
    left, right = (_only(table, common) for table in (left, right))
    for number, one, other in zip(left["id"].to_pylist(), *_pair(left, right, "original"), strict=True):
        if one != other:
            raise ValueError(f"text {number} is not the same in {first} and {second}; measure both on the same pairs")
    names = [name.removesuffix(PART) for name in left.column_names if name.endswith(PART)]
    return {
        name: paired_bootstrap(
            *((table[name + PART].to_numpy(), table[name + WHOLE].to_numpy()) for table in (left, right)),
            resamples=resamples,
            seed=seed,
        )
        for name in names
        if name + PART in right.column_names
    }


def _pair(left: pa.Table, right: pa.Table, name: str) -> tuple[list[str], list[str]]:
    return left[name].to_pylist(), right[name].to_pylist()


def _only(table: pa.Table, ids: set[int]) -> pa.Table:
    return table.filter(pa.array([number in ids for number in table["id"].to_pylist()]))


def _read(folder: Path) -> pa.Table:
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {FILE}; give a folder that jobs/evaluate.py wrote a report into")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: cannot be read ({error}); measure again with jobs/evaluate.py") from error
    missing = {"id", "original"} - set(table.column_names)
    if missing:
        raise ValueError(f"{path}: no column {sorted(missing)[0]}; give a folder that jobs/evaluate.py wrote into")
    return table
