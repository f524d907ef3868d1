import pytest

from embinv.evaluation.markup import bdi, marked, visible


def test_text_is_escaped_and_its_control_characters_are_shown_by_their_numbers():
    assert visible('<a href="b">&\'\t') == "&lt;a href=&quot;b&quot;&gt;&amp;&#x27;\t"
    assert visible("\x00 \x1b \x7f \x85 \ud800") == "⟨U+0000⟩ ⟨U+001B⟩ ⟨U+007F⟩ ⟨U+0085⟩ ⟨U+D800⟩"
    assert visible("one\r\ntwo\nthree\rfour") == "one\ntwo\nthree⟨U+000D⟩four"
    assert visible("\u202eabc\u2069 \u200dجוש") == "⟨U+202E⟩abc⟨U+2069⟩ \u200dجוש"  # a joiner is part of words
    assert visible(8) == "8"


def test_only_the_name_of_a_language_becomes_an_attribute():
    assert bdi("x", "zh-Hant") == '<bdi lang="zh-Hant">x</bdi>'
    for lang in (None, "", "unknown language", 'en" onclick="'):
        assert bdi("x", lang) == "<bdi>x</bdi>"


@pytest.mark.parametrize(
    ("original", "recovered", "left", "right"),
    [
        ("same text.", "same text.", "same text.", "same text."),
        ("Same  TEXT", "same text", "Same  TEXT", "same text"),
        ("a b c d", "a x y d", "a <del>b c</del> d", "a <ins>x y</ins> d"),
        ("a b", "a", "a <del>b</del>", "a"),
        ("", "a ", "", "<ins>a</ins> "),
        (" a, b", "b", " <del>a,</del> b", "b"),
        ("don't", "don’t", "don<del>&#x27;</del>t", "don<ins>’</ins>t"),
        ("東京へ", "東へ", "東<del>京</del>へ", "東へ"),
        ("\u00e9t\u00e9", "e\u0301te\u0301", "\u00e9t\u00e9", "e\u0301te\u0301"),
    ],
)
def test_words_that_differ_are_marked_on_both_sides(original, recovered, left, right):
    assert marked(original, recovered) == (left, right)
