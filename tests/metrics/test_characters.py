import numpy as np
import pytest

from embinv.metrics.characters import character_error_rate, is_inside_word, normal_form, words

ORIGINALS = ["Anna paid two coins.", "kitten", "日本語の文", "a"]
RECOVERED = ["Anna paid 2 coins", "sitting", "日本の文章", "xyz"]


def edits(left, right):
    """Levenshtein distance by its recurrence."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, row = row, [i]
        for j, b in enumerate(right, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def random_texts(count, seed, longest=12):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, size=(2, count))
    return [["".join(rng.choice(list("abæ語 "), size=length)) for length in side] for side in lengths]


def test_error_rate_is_all_edits_over_all_characters_of_the_originals():
    assert [edits(x, y) for x, y in zip(ORIGINALS, RECOVERED, strict=True)] == [4, 3, 2, 3]
    figure = character_error_rate(ORIGINALS, RECOVERED)
    assert figure.value == pytest.approx((4 + 3 + 2 + 3) / (20 + 6 + 5 + 1))
    assert figure.n == 4


def test_edits_are_those_of_the_recurrence():
    originals, recovered = random_texts(60, 0)
    distances = [edits(x, y) for x, y in zip(originals, recovered, strict=True)]
    assert character_error_rate(originals, recovered).value == pytest.approx(sum(distances) / sum(map(len, originals)))


def test_standard_error_agrees_with_a_bootstrap_over_texts():
    originals, recovered = random_texts(400, 1)
    distances = np.array([edits(x, y) for x, y in zip(originals, recovered, strict=True)])
    lengths = np.array([len(x) for x in originals])
    draws = np.random.default_rng(0).integers(0, 400, size=(4000, 400))
    bootstrap = (distances[draws].sum(axis=1) / lengths[draws].sum(axis=1)).std()
    assert character_error_rate(originals, recovered).standard_error == pytest.approx(bootstrap, rel=0.08)


def test_nothing_is_wrong_in_the_original_and_everything_in_an_empty_text():
    same = character_error_rate(ORIGINALS, ORIGINALS)
    assert (same.value, same.standard_error) == (0.0, 0.0)
    assert character_error_rate(ORIGINALS, [""] * 4).value == 1.0


def test_error_rate_exceeds_one_where_what_was_recovered_is_longer():
    assert character_error_rate(["a", "b"], ["xyz", "xyz"]).value == 3.0


def test_case_counts_and_how_a_character_is_composed_does_not():
    assert character_error_rate(["Ab", "ab"], ["ab", "ab"]).value == 0.25
    assert character_error_rate(["café", "cafe\u0301"], ["cafe\u0301", "café"]).value == 0.0


def test_what_has_no_error_rate_raises_and_is_never_zero():
    for pair in ((["a"], ["a"]), ([], []), (["a", ""], ["a", "b"])):
        with pytest.raises(ValueError, match="at least 2 texts, each with a character"):
            character_error_rate(*pair)
    with pytest.raises(ValueError, match="zip"):
        character_error_rate(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Anna's 3 cats, don't_worry.", ["anna", "s", "3", "cats", "don", "t", "worry"]),
        ("Straße СОБАКА Ελλάς", ["strasse", "собака", "ελλάσ"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and the virama are part of their word
        ("한국어 문장", ["한국어", "문장"]),  # Korean has spaces
        ("我在北京, 2024年。", ["我", "在", "北", "京", "2024", "年"]),
        ("カーテンを買う", ["カ", "ー", "テ", "ン", "を", "買", "う"]),
        ("ｶﾞｽ ＡＢＣ", ["ガ", "ス", "abc"]),  # half and full width
        ("ที่นี่ ปี 2563", ["ที่", "นี่", "ปี", "2563"]),
        ("iPhone手机", ["iphone", "手", "机"]),
        ("?! 🙂 …", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_single_letters_where_a_script_has_no_spaces(text, found):
    assert words(text) == found


def test_normal_form_knows_neither_case_nor_width_nor_composition():
    assert normal_form("ＣＡＦＥ\u0301 №1") == normal_form("Café no1") == "café no1"
    assert normal_form(normal_form("ǅ İ ﬁ")) == normal_form("ǅ İ ﬁ")


@pytest.mark.parametrize(
    ("left", "right", "inside"),
    [
        ("20", "12", True),
        ("a", "1", True),
        ("a", " b", False),
        ("3.", "12", False),
        ("北", "京", False),
        ("年", "12", False),
        ("12", "月", False),
        ("ท", "\u0e35", True),  # a Thai vowel sign
        ("द", "\u093f", True),  # a Devanagari one
        ("", "a", False),
        ("a", "", False),
    ],
)
def test_cut_goes_through_a_word_only_between_its_letters_or_before_a_mark(left, right, inside):
    assert is_inside_word(left + right, len(left)) is inside
