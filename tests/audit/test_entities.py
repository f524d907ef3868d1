"""embinv/audit/entities.py: rates of labelled values, beside those of embinv.metrics.entities and by hand."""

import pickle

import pyarrow as pa
import pytest

from embinv.audit.entities import EntityRates, Hit, entities_schema, entities_table, find_entities
from embinv.metrics.entities import entity_recall, entity_recall_by_kind

ENTITIES = [[("PERSON", "Ann"), ("CITY", "Bern")], [], [("PERSON", "Carl"), ("PERSON", "Dora")], [("AGE", "34")]]
RECOVERED = ["ann left", "bern", "carl and ann", "34 of 340"]


def entity_rates(hits):
    rates = EntityRates()
    for own in hits:
        rates.add(own)
    return rates.rates()


def test_rates_are_those_of_the_metric_where_no_spaces_are_in_the_way():
    rates = entity_rates(find_entities(ENTITIES, RECOVERED))
    whole = entity_recall(ENTITIES, RECOVERED)
    assert (rates["recall"], rates["recall_se"], rates["texts"]) == pytest.approx(
        (whole.value, whole.standard_error, whole.n)
    )
    person = entity_recall_by_kind(ENTITIES, RECOVERED)["PERSON"]
    assert rates["by_kind"]["PERSON"]["recall"] == pytest.approx(person.value)
    assert rates["by_kind"]["PERSON"]["recall_se"] == pytest.approx(person.standard_error)
    assert (rates["n"], rates["found"]) == (5, 3)


def test_a_kind_that_one_text_has_is_counted_without_an_error():
    rates = entity_rates(find_entities(ENTITIES, RECOVERED))
    assert rates["by_kind"]["CITY"] == {"n": 1, "texts": 1, "found": 0, "recall": 0.0, "recall_se": None}


def test_nothing_labelled_has_no_rates():
    assert entity_rates([]) is None and entity_rates([[]]) is None


def test_what_rates_are_kept_from_does_not_grow_with_the_texts():
    rates = EntityRates()
    sizes = []
    for _ in range(2):
        for _ in range(500):
            rates.add([Hit("PERSON", "Ann", True), Hit("CITY", "Bern", False)])
        sizes.append(len(pickle.dumps(rates)))
    assert sizes[1] <= sizes[0] + 100


def test_the_file_has_a_row_for_each_labelled_value():
    hits = find_entities(ENTITIES, RECOVERED)
    table = entities_table([7, 8, 9, 10], hits, entities_schema(pa.int64()))
    assert table["id"].to_pylist() == [7, 7, 9, 9, 10]
    assert table["found"].to_pylist() == [True, False, True, False, True]
    assert len(entities_table([1], [[]], entities_schema(pa.int64()))) == 0
