"""Properties of the pure functions that clean, identify, filter and choose a corpus's texts."""

import itertools
import unicodedata
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from embinv.data.corpus import (
    drop_reason,
    identity_key,
    language_quotas,
    normalise,
    select_rows,
    text_id,
)

PINNED_ID = 7_731_371_078_667_521_903  # of "The quick brown fox"; a change of it would orphan every dataset on disk

UGLY = [
    "",
    "plain text",
    "  two\t\tspaces\r\nand a line\u2028break ",
    "cafe\u0301 na\u00efve",
    "zero\u200bwidth\ufeff and soft\u00adhyphen",
    "null\x00 and bell\x07",
    "no\u00a0break\u3000wide",
    "e\u200b\u0301 composes once the invisible character is gone",
    "\ud800 lone surrogate",
    "Straße İstanbul ΐ ſ ﬁ",
    "한국어 \u1112\u1161\u11ab",
    "مرحبا \u202bبالعالم\u202c",
    "emoji 👩\u200d⚕️ stays",
]


@pytest.mark.parametrize("text", UGLY)
def test_normal_text_is_printable_composed_and_single_spaced(text: str) -> None:
    normal = normalise(text)
    assert normal.isprintable()
    assert unicodedata.is_normalized("NFC", normal)
    assert normal == " ".join(normal.split(" ")) and "  " not in normal and normal == normal.strip()


@pytest.mark.parametrize("text", UGLY)
def test_normalising_and_keying_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert identity_key(identity_key(text)) == identity_key(text)


def test_newlines_and_tabs_separate_words_and_invisible_characters_do_not() -> None:
    assert normalise("a\nb\tc\x00d\u200be") == "a b cde"


def test_every_single_character_of_the_basic_plane_normalises_to_something_printable() -> None:
    text = "".join(map(chr, range(0x10000)))
    assert normalise(text).isprintable()
    text_id(text)  # encodable, surrogates and all


def test_texts_equal_up_to_case_and_whitespace_have_one_id() -> None:
    variants = [
        "Anna Müller, Köln",
        "ANNA  MÜLLER, KÖLN",
        " anna mu\u0308ller,\nköln\t",
        "anna\u200b müller, köln",
    ]
    assert len({text_id(variant) for variant in variants}) == 1
    assert text_id("Straße") == text_id("STRASSE")


def test_ids_are_distinct_non_negative_int64_and_never_change() -> None:
    ids = {text_id(f"text {number}") for number in range(20_000)}
    assert len(ids) == 20_000
    assert all(0 <= value < 2**63 for value in ids)
    assert max(ids) > 2**62  # all 63 bits are in use
    assert text_id("The quick brown fox") == PINNED_ID


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\u200b ", "empty"),
        ("abcd", "too_short"),
        ("abcde", None),
        ("  abcd   ", "too_short"),
        ("abcdefgh", None),
        ("abcdefghi", "too_long"),
        ("a \n\n\n    bcdefg", None),
    ],
)
def test_a_text_is_dropped_for_its_normalised_length(text: str, reason: str | None) -> None:
    assert drop_reason(text, min_chars=5, max_chars=8) == reason


def round_robin(available: dict[str, int], rows: int) -> Counter[int]:
    """Hand rows out one at a time, each to the language with the fewest that has more; count the shares."""
    given = dict.fromkeys(available, 0)
    for _ in range(rows):
        open_langs = [lang for lang in available if given[lang] < available[lang]]
        if not open_langs:
            break
        given[min(open_langs, key=lambda lang: given[lang])] += 1
    return Counter(given.values())


def test_quotas_are_those_of_handing_rows_out_one_at_a_time() -> None:
    for counts in itertools.product(range(5), repeat=3):
        available: dict[str, int] = dict(zip(("ar", "en", "zh"), counts, strict=True))
        for rows in range(sum(counts) + 3):
            quotas = language_quotas(available, rows)
            assert list(quotas) == list(available)
            assert sum(quotas.values()) == min(rows, sum(counts))
            assert all(0 <= quotas[lang] <= available[lang] for lang in available)
            assert Counter(quotas.values()) == round_robin(available, rows)


def test_a_small_language_gives_all_and_the_others_share_the_rest() -> None:
    assert language_quotas({"en": 1000, "ko": 10, "ru": 500}, 300) == {"en": 145, "ko": 10, "ru": 145}


def test_without_a_number_of_rows_all_are_taken() -> None:
    assert language_quotas({"en": 3, "de": 0}, None) == {"en": 3, "de": 0}
    assert language_quotas({}, 5) == {}


def test_quotas_do_not_depend_on_the_order_of_the_languages() -> None:
    available = {"en": 5, "de": 5, "fr": 5, "ja": 2}
    for order in itertools.permutations(available):
        assert language_quotas({lang: available[lang] for lang in order}, 13) == language_quotas(available, 13)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        language_quotas({"en": 3}, -1)
    with pytest.raises(ValueError, match="fr"):
        language_quotas({"en": 3, "fr": -2}, 1)


def sample_rows(n: int = 3000) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2000, size=n, dtype=np.int64) * 4_611_686_018_427
    langs = np.array(["en", "de", "ja"])[
        np.minimum(ids // 4_611_686_018_427 // 900, 2)
    ]  # the language is a function of the id
    return ids, langs


def test_each_id_is_kept_once_and_at_its_first_place() -> None:
    ids, langs = sample_rows()
    keep = select_rows(ids, langs, None, seed=0)
    seen: set[int] = set()
    for row, value in enumerate(ids.tolist()):
        assert keep[row] == (value not in seen)
        seen.add(value)


@pytest.mark.parametrize("rows", [0, 1, 7, 100, 900, 10_000])
def test_the_choice_fills_the_quotas_of_the_languages(rows: int) -> None:
    ids, langs = sample_rows()
    keep = select_rows(ids, langs, rows, seed=3)
    unique = {lang: len(set(ids[langs == lang].tolist())) for lang in ("en", "de", "ja")}
    kept = {lang: int(np.sum(keep & (langs == lang))) for lang in unique}
    assert kept == language_quotas(unique, rows)
    assert len(set(ids[keep].tolist())) == keep.sum()


def test_which_texts_stay_does_not_depend_on_the_order_of_rows() -> None:
    ids, langs = sample_rows()
    order = np.random.default_rng(1).permutation(len(ids))
    chosen = set(ids[select_rows(ids, langs, 500, seed=0)].tolist())
    assert set(ids[order][select_rows(ids[order], langs[order], 500, seed=0)].tolist()) == chosen


def test_more_rows_keep_what_fewer_rows_kept() -> None:
    ids, langs = sample_rows()
    few, many = (select_rows(ids, langs, rows, seed=0) for rows in (200, 600))
    assert np.all(many[few])


def test_another_seed_makes_another_choice_and_the_same_seed_the_same() -> None:
    ids, langs = sample_rows()
    first, again, other = (select_rows(ids, langs, 500, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    overlap = np.sum(first & other) / 500
    assert 0.1 < overlap < 0.8  # about what two independent choices share


def test_every_row_of_a_language_has_an_equal_chance() -> None:
    ids = np.arange(40, dtype=np.int64)
    langs = np.full(40, "en")
    times = sum(select_rows(ids, langs, 10, seed=seed).astype(int) for seed in range(800))
    assert np.all(np.abs(times - 200) < 5 * np.sqrt(800 * 0.25 * 0.75))  # five standard deviations of a binomial


def test_no_rows_give_an_empty_mask_and_unequal_columns_are_refused() -> None:
    empty = select_rows(np.array([], dtype=np.int64), np.array([], dtype=np.str_), 5, seed=0)
    assert empty.shape == (0,) and empty.dtype == np.bool_
    with pytest.raises(ValueError, match="equally long"):
        select_rows(np.arange(3), np.array(["en", "de"]), 5, seed=0)
