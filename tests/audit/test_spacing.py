"""embinv/audit/spacing.py: spaces of a tokenizer are taken out where they are in the way, and nowhere else."""

import pytest

from embinv.audit.spacing import close_up, stands_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to john. smith @ example. com. thanks", "write to john.smith@example.com. thanks"),
        ("john @ example. co. uk now", "john@example.co.uk now"),
        ("john @ example. com in the end", "john@example.com in the end"),
        ("john.smith@example.com.", "john.smith@example.com."),
        ("call + 49 30 1234567 today", "call +49 30 1234567 today"),
        ("call ( 212 ) 555 - 0187", "call (212) 555-0187"),
        ("$ 88, 450 by may 9", "$ 88,450 by may 9"),
        ("from 192. 168. 0. 1 on 2023 - 01 - 02", "from 192.168.0.1 on 2023-01-02"),
        ("mac 00 : 1a : 2b : 3c : 4d : 5e", "mac 00:1a:2b:3c:4d:5e"),
        ("see https : / / www. example. com / a - b. then", "see https://www.example.com/a-b. then"),
        ("they left. in the end it was so. is it", "they left. in the end it was so. is it"),
        ("a @ b", "a@b"),
        ("", ""),
    ],
)
def test_spaces_go_inside_numbers_and_addresses_and_stay_in_prose(text, expected):
    closed = close_up(text)
    assert closed.text == expected
    assert "".join(text[place] for place in closed.origins) == closed.text


def test_a_stretch_of_the_closed_text_is_found_in_the_given_one():
    text = "mail john @ example. com now"
    closed = close_up(text)
    start = closed.text.index("john")
    begin, end = closed.place(start, start + len("john@example.com"))
    assert text[begin:end] == "john @ example. com"


@pytest.mark.parametrize(
    ("surface", "text", "expected"),
    [
        ("$88,450", "he owes $ 88, 450 for it", True),
        ("Wolfe-McDaniel", "wolfe - mcdaniel plc", True),
        ("john_s@example.com", "to john _ s @ example. com", True),
        ("Müller", "muller came", True),
        ("김민수가", "어제 김민수가 왔다", True),
        ("12", "in 2012", False),
        ("12", "a 3.12 b", True),
        ("Ann", "annabel", False),
        ("New York", "newyork", False),
        ("\u0301", "anything", False),
    ],
)
def test_words_stand_in_a_text_whatever_the_spaces_around_signs(surface, text, expected):
    assert stands_in(surface, text) is expected
