import pytest

from embinv.defences.redaction import merged, redact, redact_all

TEXT = "Anna Weber owes 40 euros."


def test_labels_stand_in_place_of_spans():
    assert redact(TEXT, [(16, 24, "AMOUNT"), (0, 10, "PERSON")]) == "[PERSON] owes [AMOUNT]."


def test_a_text_without_spans_stays():
    assert redact(TEXT, []) == TEXT


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 4, "FIRST"), (0, 10, "PERSON")], [(0, 10, "PERSON")]),
        ([(0, 10, "PERSON"), (5, 15, "NOUN")], [(0, 15, "PERSON")]),
        ([(0, 3, "A"), (2, 5, "B"), (4, 12, "C")], [(0, 12, "C")]),
        ([(0, 10, "OUTER"), (2, 4, "INNER"), (9, 11, "LAST")], [(0, 11, "OUTER")]),
        ([(0, 4, "A"), (4, 8, "B")], [(0, 4, "A"), (4, 8, "B")]),
    ],
    ids=["inside", "overlap", "chain", "far reach", "touching"],
)
def test_overlapping_spans_go_together_under_the_longest_ones_label(spans, expected):
    assert merged(spans) == expected
    assert merged(spans[::-1]) == expected


def test_no_character_of_a_span_is_left():
    spans = [(3, 9, "X"), (7, 12, "Y"), (20, 22, "Z"), (4, 5, "W")]
    gone = {place for start, end, _ in spans for place in range(start, end)}
    upper = "".join(chr(0x4E00 + place) if place in gone else char for place, char in enumerate(TEXT))
    assert not any(ord(char) >= 0x4E00 for char in redact(upper, spans))


@pytest.mark.parametrize("span", [(3, 3, "X"), (-1, 2, "X"), (20, 26, "X"), (5, 4, "X")])
def test_spans_of_another_text_are_refused(span):
    with pytest.raises(ValueError, match=r"a span of X is .*the text has 25 characters"):
        redact(TEXT, [(0, 10, "PERSON"), span])


def test_each_text_has_its_own_spans():
    assert redact_all(["ab", "cd"], [[(0, 1, "X")], []]) == ["[X]b", "cd"]
    with pytest.raises(ValueError, match="spans of 1 texts were given for 2"):
        redact_all(["ab", "cd"], [[]])
