"""Properties of the pure functions that clean, identify, filter and choose a corpus's texts."""

import itertools
import random
import sys
import unicodedata
from collections import Counter
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from embinv.data import corpus
from embinv.data.corpus import (
    DROP_REASONS,
    clean_batch,
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
    assert normal.replace("\u200d", "").replace("\u200c", "").isprintable()
    assert unicodedata.is_normalized("NFC", normal)
    assert normal == " ".join(normal.split(" ")) and "  " not in normal and normal == normal.strip()


@pytest.mark.parametrize("text", UGLY)
def test_normalising_and_keying_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert identity_key(identity_key(text)) == identity_key(text)


def test_newlines_and_tabs_separate_words_and_invisible_characters_do_not() -> None:
    assert normalise("a\nb\tc\x00d\u200be") == "a b cde"


WRITTEN_WITH_JOINERS = {
    "Persian": "می\u200cخواهم به خانه\u200cام بروم",
    "Sinhala": "ශ්\u200dරී ලංකා",
    "Hindi half form": "क्\u200dष और क्\u200cष",
    "old Malayalam chillu": "അവന്\u200d വന്നു",
    "emoji family": "👨\u200d👩\u200d👧 and 👩🏽\u200d⚕️ and ❤️\u200d🔥",
}


@pytest.mark.parametrize("name", WRITTEN_WITH_JOINERS)
def test_joiners_that_are_part_of_the_writing_stay(name: str) -> None:
    assert normalise(WRITTEN_WITH_JOINERS[name]) == WRITTEN_WITH_JOINERS[name]


@pytest.mark.parametrize(
    ("rough", "clean"),
    [
        ("ze\u200cro wi\u200ddth", "zero width"),
        ("\u200cسلام\u200c \u200dدنیا\u200c", "سلام دنیا"),
        ("می\u200c\u200c\u200dخواهم", "می\u200cخواهم"),
        ("می\u00ad\u200c\ufeffخواهم", "می\u200cخواهم"),
        ("漢\u200d字 Пр\u200cивет", "漢字 Привет"),
        ("👩\u200d plain 👩\u200c👩", "👩 plain 👩👩"),
        ("a \u200d b", "a b"),
        ("e\u200d\u0301", "é"),
        ("soft\u00adhyphen \ufeffmark \u202bright\u202c", "softhyphen mark right"),
        ("❤\ufe0f keeps its selector", "❤\ufe0f keeps its selector"),
        ("flag \U0001f3f4\U000e0067\U000e0062\U000e007f", "flag \U0001f3f4"),
    ],
)
def test_other_invisible_characters_go(rough: str, clean: str) -> None:
    assert normalise(rough) == clean


@pytest.mark.parametrize("name", WRITTEN_WITH_JOINERS)
def test_joiners_do_not_count_for_the_identity_of_a_text(name: str) -> None:
    text = WRITTEN_WITH_JOINERS[name]
    assert text_id(text) == text_id(text.replace("\u200c", "").replace("\u200d", ""))
    assert identity_key(text).isprintable()


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


ODD = (
    *map(chr, range(0x180)),
    *"\u200c\u200d\u200b\u00ad\ufeff\ufe0f\u0301\u0338\u0650\u0653\u0d4d\u0928می👩❤⚕कष\u2adc\u2329\u3000\u2028İſﬁΣς가한\u1100\u1161\u11a8が\u3099漢"
    * 6,
)
WORDY = (*"abcXYZ 019.,  ÄéñßøЖя дом漢字かなカナ한국مرحبا«»“”…、。！", "\u00a0", "  ")


def random_texts(alphabet: tuple[str, ...], count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(alphabet, k=rng.randrange(14))) for _ in range(count)]


@pytest.mark.parametrize("alphabet", [ODD, WORDY])
def test_normal_forms_of_random_texts_are_stable_and_keep_their_identity(alphabet: tuple[str, ...]) -> None:
    for text in random_texts(alphabet, 20_000, seed=1):
        normal = normalise(text)
        assert normalise(normal) == normal
        assert unicodedata.is_normalized("NFC", normal)
        assert identity_key(normal) == identity_key(text) == identity_key(identity_key(text))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("alphabet", [ODD, WORDY])
def test_a_batch_is_cleaned_exactly_as_its_texts_one_by_one(alphabet: tuple[str, ...], kind: pa.DataType) -> None:
    texts = [*random_texts(alphabet, 20_000, seed=2), *(text for text in UGLY if "\ud800" not in text)]
    whole = clean_batch(pa.array(texts, kind), 3, 9)
    assert whole.texts.type == pa.string()
    assert whole.texts.to_pylist() == [normalise(text) for text in texts]
    assert whole.ids.dtype == np.int64 and whole.ids.tolist() == [text_id(text) for text in texts]
    assert [DROP_REASONS[code] for code in whole.reasons] == [drop_reason(text, 3, 9) for text in texts]

    chunks = clean_batch(pa.chunked_array([pa.array(texts[:77], kind), pa.array(texts[77:], kind).slice(5)]), 3, 9)
    rest = np.r_[0:77, 82 : len(texts)]
    assert chunks.texts.equals(whole.texts.take(pa.array(rest)))
    assert np.array_equal(chunks.ids, whole.ids[rest]) and np.array_equal(chunks.reasons, whole.reasons[rest])


def test_the_fast_path_holds_only_characters_that_cleaning_and_arrow_treat_alike() -> None:
    everything = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    plain = pc.filter(
        (column := pa.array(everything)), pc.call_function("match_substring_regex", [column], corpus._PLAIN_TEXT)
    )
    assert len(plain) > 30_000
    composing = {
        char
        for whole in everything
        for char in unicodedata.normalize("NFD", whole)[1:]  # Hangul vowels and finals too
    }
    for char, lower in zip(plain.to_pylist(), pc.call_function("utf8_lower", [plain]).to_pylist(), strict=True):
        assert normalise(char) == char and identity_key(char) == lower
        assert unicodedata.combining(char) == 0 and char not in composing


def test_nulls_are_empty_texts_and_no_rows_give_no_rows() -> None:
    cleaned = clean_batch(pa.array([None, "a text", ""]), 1, 10)
    assert cleaned.texts.to_pylist() == ["", "a text", ""]
    assert cleaned.reasons.tolist() == [1, 0, 1]
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        nothing = clean_batch(empty, 1, 10)
        assert len(nothing.texts) == len(nothing.ids) == len(nothing.reasons) == 0


def test_a_column_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="column of strings, got int64"):
        clean_batch(pa.array([1, 2]), 1, 10)


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


def weighted_level(available: dict[str, int], weights: dict[str, Fraction], rows: int) -> dict[str, float]:
    """Water-filling by bisection on the level: the lesser of what a language has and its weight times the level."""
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        total = sum(min(available[lang], float(weights[lang]) * level) for lang in weights)
        low, high = (level, high) if total < rows else (low, level)
    return {lang: min(available[lang], float(weights[lang]) * low) for lang in weights}


def test_quotas_under_shares_are_within_a_row_of_the_water_level() -> None:
    rng = random.Random(0)
    langs = ["ar", "de", "en", "ja", "zh"]
    for _ in range(500):
        available = {lang: rng.randrange(60) for lang in langs}
        shares = {lang: rng.choice([0.01, 0.1, 0.15, 0.2]) for lang in rng.sample(langs, rng.randrange(1, 5))}
        rows = rng.randrange(sum(available.values()) + 20)
        quotas = language_quotas(available, rows, shares)
        unnamed = (1 - sum(Fraction(str(share)) for share in shares.values())) / (len(langs) - len(shares))
        weights = {lang: Fraction(str(shares[lang])) if lang in shares else unnamed for lang in langs}
        assert sum(quotas.values()) == min(rows, sum(available.values()))
        assert all(0 <= quotas[lang] <= available[lang] for lang in langs)
        level = weighted_level(available, weights, rows)
        assert all(abs(quotas[lang] - level[lang]) < 1 + 1e-6 for lang in langs)


@pytest.mark.parametrize(
    ("available", "shares", "quotas"),
    [
        ({"en": 1000, "de": 1000, "fr": 1000}, {"en": 0.5}, {"en": 50, "de": 25, "fr": 25}),
        ({"en": 1000, "de": 10, "fr": 1000}, {"en": 0.5}, {"en": 60, "de": 10, "fr": 30}),
        ({"en": 20, "de": 1000, "fr": 1000}, {"en": 0.5}, {"en": 20, "de": 40, "fr": 40}),
        ({"en": 1000, "de": 1000, "fr": 1000}, {"en": 0.7, "de": 0.3}, {"en": 70, "de": 30, "fr": 0}),
        ({"en": 50, "de": 10, "fr": 1000}, {"en": 0.7, "de": 0.3}, {"en": 50, "de": 10, "fr": 40}),
        ({"en": 1000, "de": 1000}, {"en": 0.4, "ko": 0.2}, {"en": 50, "de": 50}),
        ({"en": 3, "de": 3}, {"en": 1.0}, {"en": 3, "de": 3}),
    ],
)
def test_named_languages_take_their_shares_and_the_others_divide_the_rest(
    available: dict[str, int], shares: dict[str, float], quotas: dict[str, int]
) -> None:
    assert language_quotas(available, 100, shares) == quotas


def test_equal_shares_are_what_no_shares_give() -> None:
    for counts in itertools.product(range(4), repeat=3):
        available = dict(zip(("ar", "en", "zh"), counts, strict=True))
        for rows in range(sum(counts) + 2):
            expected = language_quotas(available, rows)
            assert language_quotas(available, rows, {}) == expected
            assert language_quotas(available, rows, dict.fromkeys(available, 0.25)) == expected


@pytest.mark.parametrize(
    "shares", [{"en": 0.0}, {"en": -0.1}, {"en": 1.1}, {"en": 0.6, "de": 0.5}, {"en": float("nan")}]
)
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to at most 1"):
        language_quotas({"en": 3}, 2, shares)


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


def test_the_choice_fills_the_quotas_under_shares() -> None:
    ids, langs = sample_rows()
    keep = select_rows(ids, langs, 300, seed=3, shares={"ja": 0.1, "en": 0.6})
    assert Counter(langs[keep].tolist()) == {"en": 180, "de": 90, "ja": 30}


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
