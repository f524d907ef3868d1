"""embinv/audit/masking.py: what stays of a text when nobody may be named, and that nothing else does."""

import pytest

from embinv.audit.masking import Shown, WordCounts, mask, pieces
from embinv.audit.personal_data import Span
from embinv.audit.spacing import without_accents
from embinv.data.records import generate_records
from embinv.metrics.characters import words

COMMON = Shown(frozenset("the patient was seen by and paid on".split()))


def masked(text, spans=(), entities=(), shown=COMMON):
    return mask([text], [list(spans)], list(entities), shown)[0]


def test_words_that_many_texts_hold_stay_and_all_others_are_hidden():
    assert masked("The patient Ann Weber was seen.") == "The patient [WORD 1 ███] was seen."


def test_a_block_is_as_wide_for_a_long_word_as_for_a_short_one():
    assert masked("the Bo was") == masked("the Bartholomew was")


def test_what_was_recognised_is_hidden_under_its_kind():
    text = "paid on 2023 - 01 - 02 by the patient"
    assert masked(text, [Span(8, 22, "DATE")]) == "paid on [DATE 1 ███] by the patient"


@pytest.mark.parametrize("text", ["the 7 was", "the x9 was", "the ٣ was", "the 12,50 was", "the ½ was"])
def test_everything_with_a_digit_is_hidden_even_if_all_texts_hold_it(text):
    shown = Shown(frozenset(["the", "was", *(word for word in words(text))]))
    assert masked(text, shown=shown) == "the [NUMBER 1 ███] was"


def test_words_of_labelled_values_are_hidden_on_both_sides_even_if_all_texts_hold_them():
    shown = Shown(frozenset("the patient ann was seen weber".split()))
    recovered, original = mask(
        ["the patient ann was", "The patient Ann Weber was"], [[], []], [("PERSON", "Ann Weber")], shown
    )
    assert recovered == "the patient [PERSON 1 ███] was" and original == "The patient [PERSON 2 ███] was"


def test_the_same_words_have_the_same_number_in_one_example():
    recovered, original = mask(["ann paid carl", "Ann paid Dora, Carl"], [[], []], [], COMMON)
    assert recovered == "[WORD 1 ███] paid [WORD 2 ███]"
    assert original == "[WORD 1 ███] paid [WORD 3 ███]"


def test_words_that_are_mostly_labelled_are_hidden_in_every_text_and_other_ones_are_not():
    counts = WordCounts()
    counts.add(["ann and may were here"] * 5)
    for original, entities in (
        ("Ann may come", [("PERSON", "Ann")]),
        ("Ann and May", [("PERSON", "Ann and May")]),
        ("it may and may", []),
        ("and so", []),
    ):
        counts.add_labelled(original, entities)
    shown = counts.shown(5)
    assert shown.labelled == {"ann": ("PERSON",)}
    assert masked("ann and may were here", shown=shown) == "[PERSON 1 ███] and may were here"


@pytest.mark.parametrize(("labelled", "said"), [("García", "garcia"), ("Garcia", "GARCÍA"), ("Muñoz", "mun\u0303oz")])
def test_a_labelled_word_is_hidden_with_its_accents_and_without_and_has_one_number(labelled, said):
    counts = WordCounts()
    counts.add([f"{said} called the clinic", f"{labelled} called the clinic"] * 5)
    counts.add_labelled(f"{labelled} called the clinic", [("PERSON", labelled)])
    shown = counts.shown(5)
    texts = [f"{said} called the clinic", f"{labelled} called the clinic"]
    expected = ["[PERSON 1 ███] called the clinic"] * 2
    assert mask(texts, [[], []], [("PERSON", labelled)], Shown(shown.common)) == expected  # labelled in this example
    assert mask(texts, [[], []], [], shown) == expected  # labelled in another one
    assert shown.names_somebody(said) and shown.names_somebody(labelled)
    assert not shown.names_somebody("clinic")


def test_a_name_stays_hidden_where_a_common_word_is_the_same_but_for_accents():
    counts = WordCounts()
    for original, entities in (("Peña paid", [("PERSON", "Peña")]), ("que pena", []), ("la pena", [])):
        counts.add_labelled(original, entities)
    shown = counts.shown(2)
    assert shown.names_somebody("peña") and not shown.names_somebody("pena")


@pytest.mark.parametrize("lang", ["de", "es", "fr", "ja", "pt", "ru"])
def test_no_word_of_a_labelled_name_is_left_of_texts_without_accents(lang):
    records = generate_records(lang, 0, 0)[:50]
    plain = [without_accents(record.text).lower() for record in records]
    counts = WordCounts()
    counts.add(plain * 2)
    shown = counts.shown(2)
    for record, said in zip(records, plain, strict=True):
        labelled = [(span.label, record.text[span.start : span.end]) for span in record.spans]
        names = {word for kind, name in labelled if kind == "PERSON" for word in words(without_accents(name))}
        left = mask([said, record.text], [[], []], labelled, shown)
        assert not names & {word for text in left for word in words(without_accents(text))} - {"person", "company"}


def test_a_word_of_a_person_and_of_a_company_keeps_both_kinds():
    entities = [("PERSON", "Schmidt"), ("COMPANY", "Schmidt GmbH")]
    counts = WordCounts()
    counts.add(["schmidt called schmidt gmbh"] * 5)
    counts.add_labelled("Schmidt called Schmidt GmbH", entities)
    for _ in range(3):
        counts.add_labelled("so did Schmidt GmbH", entities[1:])
    shown = counts.shown(5)
    assert shown.labelled == {"schmidt": ("COMPANY", "PERSON"), "gmbh": ("COMPANY",)}
    assert shown.names_somebody("schmidt") and not shown.names_somebody("gmbh")
    assert masked("schmidt called", entities=entities, shown=shown) == "[PERSON 1 ███] called"


def test_a_word_with_two_kinds_in_one_original_is_labelled_in_one_original():
    counts = WordCounts()
    counts.add_labelled("may called may", [("PERSON", "may"), ("COMPANY", "may")])
    counts.add_labelled("in may", [])
    counts.add_labelled("or may not", [])
    assert counts.shown(2).labelled == {}


def test_a_word_is_common_from_k_texts_on_however_often_one_text_has_it():
    counts = WordCounts()
    counts.add(["twice twice", "twice", "once", "Once"])
    assert counts.shown(2).common == {"twice", "once"}
    assert counts.shown(3).common == frozenset()


def test_in_scripts_without_spaces_a_letter_stays_only_in_a_row_that_many_texts_hold():
    counts = WordCounts()
    counts.add(["患者は来ました。田", "患者は来ました。中", "患者は来ました。山田", "田村", "中田"])
    masked_text = masked("患者は来ました。田中", shown=counts.shown(3))
    assert masked_text == "患者は来ました。[WORD 1 ███]"


def test_pieces_cover_every_letter_and_digit_of_a_text():
    text = "Anna-Lena's 3.5 kg 患者はJohn, 김민수가 e\u0301te"
    covered = {place for piece in pieces(text) for place in range(piece.start, piece.end)}
    assert {place for place, sign in enumerate(text) if sign.isalnum()} <= covered


def test_no_letter_of_an_unknown_word_is_left():
    secret = "Zacharias O'Neill-Krüger, 김민수, 田中太郎, Владимир"
    left = masked(f"the patient {secret} was", shown=COMMON)
    for word in ("Zach", "Neill", "Kr", "김", "田", "Влад"):
        assert word not in left


@pytest.mark.parametrize("text", ["", "...", "   "])
def test_a_text_without_words_stays_as_it_is(text):
    assert masked(text) == text
