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
from embinv.audit.ratio_sums import RatioSums
from embinv.audit.spacing import stands_in, without_accents
from embinv.metrics.entities import Entities

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


class EntityRates:
    """The share of entities that were found, over all and by kind, with standard errors over texts."""

    def __init__(self) -> None:
        self._all = RatioSums()
        self._by_kind: dict[str, RatioSums] = {}

    def add(self, hits: Sequence[Hit]) -> None:
        """Counts the entities of one text; one without any does not count."""
        if not hits:
            return
        self._all.add(sum(hit.found for hit in hits), len(hits))
        for kind in {hit.kind for hit in hits}:
            found = [hit.found for hit in hits if hit.kind == kind]
            self._by_kind.setdefault(kind, RatioSums()).add(sum(found), len(found))

    def rates(self) -> dict[str, Any] | None:
        """What was counted.

        Returns:
            n (entities), texts, found, recall, recall_se, and by_kind: the same of each kind. A standard error is None
            where one text alone has such an entity. None if nobody has one.
        """
        if not self._by_kind:
            return None
        return _rate(self._all) | {"by_kind": {kind: _rate(sums) for kind, sums in sorted(self._by_kind.items())}}


def _rate(sums: RatioSums) -> dict[str, Any]:
    found: dict[str, Any] = {"n": sums.whole, "texts": sums.n, "found": sums.part}
    if sums.n < 2:
        return found | {"recall": sums.part / sums.whole, "recall_se": None}
    return found | figure_entry("recall", sums.figure())
