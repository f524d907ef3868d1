"""embinv/audit/personal_data.py: what is found in texts as decoders write them, without a network."""

import pickle
import socket
import sys
from itertools import pairwise

import pytest

from embinv.audit import personal_data
from embinv.audit.personal_counts import PersonalSums, count_personal
from embinv.audit.personal_data import Span, find_spans
from embinv.data.dumps.base import MissingLibrary


def found_in(text, lang="en"):
    (spans,) = find_spans([text], [lang], ["en"])
    return [(text[start:end], kind) for start, end, kind in spans]


def test_no_socket_is_opened(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a socket was opened")

    personal_data.recognisers.cache_clear()
    personal_data.bundled_list.cache_clear()
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert found_in("john @ example. co. uk and https://example.com/a") == [
        ("john @ example. co. uk", "EMAIL"),
        ("https://example.com/a", "URL"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to John.Smith@example.com today", [("John.Smith@example.com", "EMAIL")]),
        ("write to john. smith @ example. com. thanks", [("john. smith @ example. com", "EMAIL")]),
        ("call + 49 30 1234567 now", [("+ 49 30 1234567", "PHONE")]),
        ("call ( 212 ) 555 - 0187 now", [("( 212 ) 555 - 0187", "PHONE")]),
        ("card 4111 1111 1111 1111 ok", [("4111 1111 1111 1111", "CREDIT_CARD")]),
        ("pay de89370400440532013000 now", [("de89370400440532013000", "IBAN")]),
        ("pay DE89 3704 0044 0532 0130 00 now", [("DE89 3704 0044 0532 0130 00", "IBAN")]),
        ("from 192. 168. 0. 1 at night", [("192. 168. 0. 1", "IP_ADDRESS")]),
        ("card 00 : 1a : 2b : 3c : 4d : 5e of the", [("00 : 1a : 2b : 3c : 4d : 5e", "MAC_ADDRESS")]),
        ("see https : / / example. com / a now", [("https : / / example. com / a", "URL")]),
        ("to bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", [("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "CRYPTO")]),
        ("ssn 536 - 90 - 4399 is", [("536 - 90 - 4399", "NATIONAL_ID")]),
        ("due on 2023 - 01 - 02.", [("2023 - 01 - 02", "DATE")]),
        ("payable by may 9, 2022 at", [("may 9, 2022", "DATE")]),
        ("they left. in may it may be so. is it", []),
        ("call 000 000 000 or 1111 1111 1111 1111", []),
        ("", []),
    ],
)
def test_what_has_a_form_is_found_with_a_tokenizers_spaces_and_without(text, expected):
    assert found_in(text) == expected


@pytest.mark.parametrize(
    ("lang", "text", "surface"),
    [
        ("es", "su dni es 12345678z y", "12345678z"),
        ("ko", "번호 960121 - 1234567 입니다", "960121 - 1234567"),
    ],
)
def test_national_ids_are_those_of_the_texts_language(lang, text, surface):
    assert (surface, "NATIONAL_ID") in found_in(text, lang)
    assert (surface, "NATIONAL_ID") not in found_in(text, "ar")


def test_months_have_their_names_in_the_texts_language_with_accents_or_without():
    assert found_in("le 3 février 2021 à", "fr") == [("3 février 2021", "DATE")]
    assert found_in("le 3 fevrier 2021 a", "fr") == [("3 fevrier 2021", "DATE")]
    assert found_in("o 3 de março", "pt-BR") == [("3 de março", "DATE")]


def test_a_text_of_unknown_language_is_tried_in_all_that_were_named():
    assert find_spans(["su dni es 12345678z y"], [None], ["en", "es"]) == [[Span(10, 19, "NATIONAL_ID")]]


@pytest.mark.parametrize("lang", ["fr", "fr-CA", "fr_CA", "FR_fr", "french", "fra", "und", "", "french_CA"])
def test_a_language_is_its_code_however_it_is_written_and_else_one_of_those_that_were_named(lang):
    assert find_spans(["le 3 février 2021 à"], [lang], ["en", "fr"]) == [[Span(3, 17, "DATE")]]


def test_a_code_without_recognisers_of_its_own_is_believed():
    assert find_spans(["su dni es 12345678z y"], ["nl"], ["en", "es"]) == [[]]


def test_recognisers_are_made_once_however_many_languages_the_texts_name():
    codes = [f"{one}{other}-{one}" for one in "abcdefghij" for other in "klmnopqrst"]
    personal_data.recognisers.cache_clear()
    find_spans(["paid"] * 300, codes * 3, ["en"])
    of_their_own = {code[:2] for code in codes} & {*personal_data.NATIONAL, *personal_data.MONTHS}
    assert personal_data.recognisers.cache_info().misses == len(of_their_own) + 1


def test_finds_do_not_overlap_and_stand_in_order():
    text = "a@example.com, 4111 1111 1111 1111, +49 30 1234567, 2023-01-02 and https://example.com/a@example.com"
    (spans,) = find_spans([text], [None], ["en", "de"])
    assert len(spans) >= 5
    assert all(one.end <= other.start for one, other in pairwise(spans))


def test_without_presidio_the_message_names_the_extra(monkeypatch):
    personal_data.recognisers.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingLibrary, match=r"embinv\[audit\]"):
        found_in("card 4111 1111 1111 1111")
    personal_data.recognisers.cache_clear()


def test_a_find_is_confirmed_by_the_original_and_what_the_original_has_is_recovered_or_not():
    text, original = "mail a @ example. com or b @ example. com", "Mail a@example.com, c@example.com"
    said, true = find_spans([text, original], ["en"] * 2, ["en"])
    assert count_personal(text, said, original, true) == {"EMAIL": (2, 1, 2, 1)}
    assert count_personal(text, said, None, []) == {"EMAIL": (2, None, 0, 0)}


def test_counts_are_added_up_by_kind_with_the_recovered_share_over_texts():
    first = count_personal("a", [Span(0, 1, "EMAIL")], "a b", [Span(0, 1, "EMAIL"), Span(2, 3, "EMAIL")])
    second = count_personal("x", [], "b", [Span(0, 1, "EMAIL")])
    third = count_personal("4", [Span(0, 1, "DATE")], None, [])
    sums = PersonalSums()
    for counts in (first, second, third):
        sums.add(counts)
    email, date = sums.summary()
    assert (email["found"], email["texts"], email["confirmed"], email["unconfirmed"]) == (1, 1, 1, 0)
    assert (email["in_originals"], email["recovered"], email["recovery"]) == (3, 1, pytest.approx(1 / 3))
    assert (date["kind"], date["found"], date["confirmed"], date["recovery"]) == ("DATE", 1, None, None)


def test_what_a_summary_is_kept_from_does_not_grow_with_the_texts():
    sums, sizes = PersonalSums(), []
    for _ in range(2):
        for _ in range(500):
            sums.add(count_personal("a", [Span(0, 1, "EMAIL")], "a b", [Span(2, 3, "EMAIL")]))
        sizes.append(len(pickle.dumps(sums)))
    assert sizes[1] <= sizes[0] + 100
