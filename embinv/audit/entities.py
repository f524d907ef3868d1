"""Labelled personal data that recovered texts hold: each entity of each original, and the rates by kind.

    entities.parquet: id, kind, surface, found    one row for each labelled entity, in the order of the rows

Every rate of the report can be counted again from that file. It holds the labelled values in clear, as the recovered
texts and the originals do. An entity is found if its words stand in the recovered text on word boundaries, whatever
their case, accents and the spaces around signs (`embinv.audit.spacing.stands_in`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from embinv.audit.leakage import figure_entry
from embinv.audit.spacing import stands_in, without_accents
from embinv.metrics.entities import Entities
from embinv.metrics.figures import ratio_figure

FILE = "entities.parquet"


class Hit(NamedTuple):
    """A labelled entity of an original, and whether the recovered text has it."""

    kind: str
    surface: str
    found: bool


def find_entities(entities: Entities, recovered: Sequence[str]) -> list[list[Hit]]:
    """Looks for the entities of n originals in n recovered texts; one without letters or digits is left out."""
    return [
        [Hit(kind, surface, stands_in(surface, text)) for kind, surface in labelled if without_accents(surface)]
        for labelled, text in zip(entities, recovered, strict=True)
    ]


def entities_schema(ids: pa.DataType) -> pa.Schema:
    """Columns of FILE, for ids of a type."""
    return pa.schema([("id", ids), ("kind", pa.string()), ("surface", pa.string()), ("found", pa.bool_())])


def entities_table(ids: Sequence[int | str], hits: Sequence[Sequence[Hit]], schema: pa.Schema) -> pa.Table:
    """A row for each entity of n texts."""
    rows = [(number, *hit) for number, own in zip(ids, hits, strict=True) for hit in own]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)], schema)


def entity_rates(tallies: Sequence[dict[str, tuple[int, int]]]) -> dict[str, Any] | None:
    """Share of entities that were found, over all and by kind, with standard errors over texts.

    Args:
        tallies: of each text, (found, labelled) by kind; texts without entities may be missing.

    Returns:
        n (entities), texts, found, recall, recall_se, and by_kind: the same of each kind. A standard error is None
        where one text alone has such an entity. None if nobody has one.
    """
    kinds = sorted({kind for tally in tallies for kind in tally})
    if not kinds:
        return None
    totals = [tuple(map(sum, zip(*tally.values(), strict=True))) for tally in tallies if tally]
    rates = _rate(totals)
    rates["by_kind"] = {kind: _rate([tally[kind] for tally in tallies if kind in tally]) for kind in kinds}
    return rates


def tally(hits: Sequence[Hit]) -> dict[str, tuple[int, int]]:
    """(found, labelled) by kind of one text."""
    counts: dict[str, tuple[int, int]] = {}
    for kind, _, found in hits:
        right, all_of = counts.get(kind, (0, 0))
        counts[kind] = (right + found, all_of + 1)
    return counts


def _rate(pairs: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    parts, wholes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found: dict[str, Any] = {"n": sum(wholes), "texts": len(pairs), "found": sum(parts)}
    if len(pairs) < 2:
        return found | {"recall": sum(parts) / sum(wholes), "recall_se": None}
    return found | figure_entry("recall", ratio_figure(parts, wholes))
