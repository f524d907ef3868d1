import numpy as np
import pytest

from embinv.metrics.entities import entity_recall, entity_recall_by_kind, occurs

ENTITIES = [
    [("person", "Anna Weber"), ("number", "12"), ("place", "Bern")],
    [],
    [("person", "Ben"), ("number", "2012")],
    [("person", "Carla"), ("person", "Dan")],
]
RECOVERED = ["anna weber paid 2012 coins in Berne", "Anna", "Ben lost it in 2012.", "Carla and Daniel"]
HITS = [[True, False, False], [True, True], [True, False]]  # of the three texts with an entity


def test_recall_is_the_share_of_all_entities_that_were_found():
    figure = entity_recall(ENTITIES, RECOVERED)
    assert figure.value == pytest.approx(4 / 7)
    assert figure.n == 3


def test_standard_error_is_that_of_a_ratio_over_the_texts_with_an_entity():
    found, count = np.array([sum(text) for text in HITS]), np.array([len(text) for text in HITS])
    residual = ((found - 4 / 7 * count) ** 2).sum() / 2
    expected = (residual / 3) ** 0.5 / count.mean()
    assert entity_recall(ENTITIES, RECOVERED).standard_error == pytest.approx(expected)


def test_kinds_are_counted_apart_and_one_that_fewer_than_two_texts_have_is_absent():
    figures = entity_recall_by_kind(ENTITIES, RECOVERED)
    assert {kind: (figure.value, figure.n) for kind, figure in figures.items()} == {
        "number": (pytest.approx(1 / 2), 2),
        "person": (pytest.approx(3 / 4), 3),
    }


def test_recall_by_the_only_kind_is_the_recall():
    entities = [[("any", surface) for _, surface in text] for text in ENTITIES]
    assert entity_recall_by_kind(entities, RECOVERED) == {"any": entity_recall(ENTITIES, RECOVERED)}


def test_originals_hold_all_of_their_entities_and_empty_texts_none():
    originals = ["Anna Weber: 12, Bern", "", "Ben (2012)", "Dan, Carla"]
    assert entity_recall(ENTITIES, originals).value == 1.0
    assert entity_recall(ENTITIES, [""] * 4).value == 0.0


@pytest.mark.parametrize(
    ("surface", "text", "expected"),
    [
        ("12", "in 2012", False),
        ("12", "in 2012, on the 12.", True),
        ("12", "12th", False),
        ("12", "3.12", True),
        ("Ann", "Anna", False),
        ("anna  WEBER", "to Anna\n\tWeber.", True),
        ("Dr. Who", "(dr. who)", True),
        ("$12", "US$12", True),
        ("O'Neil", "O'Neil's", True),
        ("Straße", "STRASSE 7", True),
        ("ＡＢＣ", "abc", True),
        ("Zoe\u0301", "Zoé", True),
        ("Zoe", "Zoé", False),
        ("北京", "我在北京工作", True),
        ("12", "二月12日", True),
        ("東京", "東の京", False),
        ("กรุงเทพ", "ในกรุงเทพฯ", True),
        ("ท", "ที่", False),
        ("김", "김은 왔다", False),  # Korean particles are part of the word
    ],
)
def test_surface_form_occurs_on_word_boundaries_in_normal_form(surface, text, expected):
    assert occurs(surface, text) is expected


@pytest.mark.parametrize("metric", [entity_recall, entity_recall_by_kind])
def test_texts_without_entities_have_no_recall(metric):
    with pytest.raises(ValueError, match="labelled entity, got 0"):
        metric([[], []], ["a", "b"])
    with pytest.raises(ValueError, match="labelled entity, got 0"):
        metric([], [])


def test_one_text_with_entities_has_no_standard_error_and_so_no_recall():
    with pytest.raises(ValueError, match="labelled entity, got 1"):
        entity_recall([[("person", "Ben")], []], ["Ben", "Ben"])


@pytest.mark.parametrize("metric", [entity_recall, entity_recall_by_kind])
def test_different_counts_and_empty_entities_are_refused(metric):
    with pytest.raises(ValueError, match="zip"):
        metric(ENTITIES, RECOVERED[:3])
    with pytest.raises(ValueError, match="surface form is ' '"):
        metric([[("person", " ")], [("person", "Ben")]], ["a", "b"])
