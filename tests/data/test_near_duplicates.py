"""Properties of MinHash signatures, banding and grouping, against exact Jaccard similarity by brute force."""

import itertools
import os
import random
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from embinv.data.corpus import seeded_key, text_id
from embinv.data.near_duplicates import (
    SHINGLE,
    band_keys,
    candidate_pairs,
    candidate_probability,
    choose_bands,
    keep_first,
    near_duplicate_groups,
    priorities,
    shingle_hashes,
    signatures,
)
from tests.near_copies import NEAR_COPIES

PLACES = 128
ALPHABETS = {
    "en": "etaoinshrdlu",
    "ru": "оеаинтсрвлкм",
    "ar": "ابتثجحخدذرزس",
    "ko": "가나다라마바사아자차카타파하고노도",
    "zh": "的一是不了人我在有他这中大来上国个到说们",
    "ja": "あいうえおかきくけこ日本語学校東京",
    "hi": "कखगघचछजझटठडढत",
}


def random_text(lang: str, rng: random.Random, letters: int) -> str:
    """Letters of one script, in words where the script has them."""
    gap = "" if lang in ("zh", "ja") else " "
    words = []
    while sum(map(len, words)) < letters:
        words.append("".join(rng.choices(ALPHABETS[lang], k=rng.randint(2, 7))))
    return gap.join(words)


def changed(text: str, rng: random.Random, times: int) -> str:
    for _ in range(times):
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(text) + text[place + 1 :]
    return text


def exact_jaccard(one: str, other: str) -> float:
    """By hand: sets of character n-grams of the letters."""
    sets = []
    for text in (one, other):
        letters = "".join(char for char in text.casefold() if char.isalnum())
        sets.append({letters[i : i + SHINGLE] for i in range(len(letters) - SHINGLE + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def kept(texts: list[str], threshold: float = 0.8, seed: int = 0) -> npt.NDArray[np.bool_]:
    """All steps in one place."""
    priority = priorities(np.array([text_id(text) for text in texts]), seed)
    signed = signatures(texts, PLACES, seed)
    pairs = candidate_pairs(band_keys(signed, *choose_bands(threshold, PLACES)), priority)
    candidates = np.unique(pairs)
    groups = near_duplicate_groups(pairs, candidates, signed[candidates], threshold, len(texts))
    return keep_first(groups, priority)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Of each language 40 texts, every second with a copy of a few changed characters beside it."""
    rng = random.Random(0)
    found = []
    for lang in ALPHABETS:
        for number in range(40):
            found.append(random_text(lang, rng, rng.randint(25, 120)))
            if number % 2:
                found.append(changed(found[-1], rng, rng.randint(1, 6)))
    return found


# Signatures


def test_the_estimate_is_unbiased_and_within_its_standard_error() -> None:
    rng = random.Random(1)
    letters = [random_text("zh", rng, 60) for _ in range(400)]
    others = [changed(text, rng, rng.randint(1, 15)) for text in letters]
    exact = np.array([exact_jaccard(*pair) for pair in zip(letters, others, strict=True)])
    one, other = signatures(letters, PLACES, 0), signatures(others, PLACES, 0)
    assert np.all((one == other)[exact == 1])
    one, other, exact = one[exact < 1], other[exact < 1], exact[exact < 1]
    error = (one == other).mean(axis=1) - exact
    standard_error = np.sqrt(exact * (1 - exact) / PLACES)
    assert exact.min() < 0.4 and exact.max() > 0.8
    assert abs(error.mean()) < 4 * standard_error.mean() / np.sqrt(len(exact))
    assert np.sqrt(np.mean((error / standard_error) ** 2)) < 1.1
    assert np.all(np.abs(error) < 5 * standard_error)


def test_all_pairs_of_a_few_hundred_texts_are_estimated_as_brute_force_finds(texts: list[str]) -> None:
    some = texts[::2]
    signed = signatures(some, PLACES, 0)
    for one, other in itertools.combinations(range(len(some)), 2):
        exact = exact_jaccard(some[one], some[other])
        estimate = (signed[one] == signed[other]).mean()
        assert abs(estimate - exact) < 6 * np.sqrt(exact * (1 - exact) / PLACES) + 3 / PLACES


def test_ngrams_are_counted_as_by_hand() -> None:
    hashes, offsets = shingle_hashes(["ab cd, AB CD", "日本語学校", "ab"], 3)
    assert offsets.tolist() == [0, 6, 9, 10]  # abcdabcd, 日本語学校, too short
    assert hashes[0] == hashes[4] and hashes[1] == hashes[5]
    assert len(set(hashes.tolist())) == 8
    assert hashes[:6].tolist() == shingle_hashes(["abcdabcd"], 3)[0].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna Müller, Köln!", "ANNA MÜLLER - KÖLN"),
        ("我今天去学校。你呢?", "我今天 去学校,你呢"),
        ("ABC12アイウエ", "ABC12アイウエ"),
        ("Straße der Pariser Kommune", "STRASSE DER PARISER KOMMUNE"),
    ],
)
def test_case_width_punctuation_and_spacing_do_not_count(one: str, other: str) -> None:
    first, second = signatures([one, other], PLACES, 0)
    assert np.array_equal(first, second)


def test_vowel_signs_count() -> None:
    first, second = signatures(["की कि कु के का", "का के कु कि की"], PLACES, 0)
    assert np.mean(first == second) < 0.5


def test_texts_without_letters_are_like_nothing_but_themselves() -> None:
    signed = signatures(["☺☺☺☺☺☺", "☹☹☹☹☹☹", "?!", "", "☺☺☺☺☺☺"], PLACES, 0)
    alike = (signed[:, None] == signed[None]).mean(axis=2) > 0.1  # [5, 5]
    assert np.array_equal(np.argwhere(np.triu(alike, 1)), [[0, 4]])


def test_signatures_do_not_depend_on_the_block_or_the_order(texts: list[str]) -> None:
    whole = signatures(texts, PLACES, 5)
    assert whole.shape == (len(texts), PLACES) and whole.dtype == np.uint32
    assert np.array_equal(np.concatenate([signatures([text], PLACES, 5) for text in texts[:50]]), whole[:50])
    order = np.random.default_rng(0).permutation(len(texts))
    assert np.array_equal(signatures([texts[row] for row in order], PLACES, 5), whole[order])
    many = texts * 6  # more than are signed at once
    assert np.array_equal(signatures(many, PLACES, 5), np.tile(whole, (6, 1)))
    assert signatures([], PLACES, 5).shape == (0, PLACES)


PROBE = """
import hashlib
from embinv.data.near_duplicates import band_keys, signatures
signed = signatures(["The quick brown fox", "我今天去学校", "أين تقع المحطة", "☺"] * 20, 128, 7)
print(hashlib.sha256(signed.tobytes() + band_keys(signed, 18, 7).tobytes()).hexdigest()[:16])
"""
PINNED = "20d43503ef40cf2d"  # a change of rensa's algorithm would show here


def test_signatures_are_the_same_in_any_process_and_on_any_kind_of_processor() -> None:
    environments = [
        {"PYTHONHASHSEED": "0", "RENSA_FORCE_KERNEL": "scalar", "RAYON_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "1"},
    ]
    runs = [
        subprocess.Popen([sys.executable, "-c", PROBE], env=os.environ | env, stdout=subprocess.PIPE, text=True)
        for env in environments
    ]
    assert [run.communicate()[0].strip() for run in runs] == [PINNED, PINNED]


def test_another_seed_gives_other_signatures(texts: list[str]) -> None:
    assert np.mean(signatures(texts, 16, 0) == signatures(texts, 16, 1)) < 0.01


def test_signatures_of_no_places_are_refused() -> None:
    with pytest.raises(ValueError, match="num_perm"):
        signatures(["a text"], 0, 0)


# Bands


def test_the_s_curve_is_that_of_simulated_signatures() -> None:
    bands, rows, trials = 18, 7, 4000
    rng = np.random.default_rng(0)
    for similarity in (0.5, 0.7, 0.8, 0.9):
        one = rng.integers(0, 2**32, (trials, bands * rows), dtype=np.uint32)
        other = np.where(rng.random(one.shape) < similarity, one, one + np.uint32(1))
        hit = (band_keys(one, bands, rows) == band_keys(other, bands, rows)).any(axis=1).mean()
        expected = candidate_probability(similarity, bands, rows)
        assert abs(hit - expected) < 5 * np.sqrt(expected * (1 - expected) / trials) + 1e-9


@pytest.mark.parametrize("places", [32, 64, 128, 256])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_bands_find_pairs_at_the_threshold_and_one_row_more_would_not(threshold: float, places: int) -> None:
    bands, rows = choose_bands(threshold, places)
    assert bands * rows <= places < (bands + 1) * rows
    assert candidate_probability(threshold, bands, rows) >= 0.95
    assert candidate_probability(threshold, places // (rows + 1), rows + 1) < 0.95


def test_the_usual_setting_gives_the_bands_that_the_documentation_counts_with() -> None:
    assert choose_bands(0.8, 128) == (18, 7)


@pytest.mark.parametrize(("threshold", "places"), [(0.0, 128), (1.0, 128), (1.5, 128), (0.1, 8)])
def test_thresholds_that_no_bands_can_serve_are_refused(threshold: float, places: int) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|more places"):
        choose_bands(threshold, places)


def test_keys_agree_where_the_whole_band_agrees_and_only_there() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 3, (2000, 12), dtype=np.uint32)  # few values, so that many bands agree
    other = rng.integers(0, 3, (2000, 12), dtype=np.uint32)
    agree = (one.reshape(-1, 4, 3) == other.reshape(-1, 4, 3)).all(axis=2)
    assert agree.any()
    assert np.array_equal(band_keys(one, 4, 3) == band_keys(other, 4, 3), agree)


# Pairs and groups


def test_pairs_are_each_bucket_member_with_the_first_by_priority() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 40, (300, 3)).astype(np.uint64)
    priority = rng.permutation(300).astype(np.uint64)
    expected = set()
    for band in keys.T.tolist():
        for key in set(band):
            members = sorted((row for row in range(300) if band[row] == key), key=lambda row: priority[row])
            expected |= {(min(members[0], row), max(members[0], row)) for row in members[1:]}
    pairs = candidate_pairs(keys, priority)
    assert pairs.tolist() == sorted(map(list, expected))


def test_a_bucket_of_ten_thousand_texts_costs_ten_thousand_pairs() -> None:
    keys = np.zeros((10_000, 4), np.uint64)
    priority = np.random.default_rng(0).permutation(10_000).astype(np.uint64)
    pairs = candidate_pairs(keys, priority)
    assert len(pairs) == 9_999
    assert np.all((pairs == np.argmin(priority)).any(axis=1))
    signed = np.zeros((10_000, 8), np.uint32)
    groups = near_duplicate_groups(pairs, np.unique(pairs), signed, 0.8, 10_000)
    assert np.flatnonzero(keep_first(groups, priority)).tolist() == [int(np.argmin(priority))]


def test_near_copies_go_and_all_else_stays_as_brute_force_says(texts: list[str]) -> None:
    keep = kept(texts, threshold=0.7)
    alike = {
        (one, other): exact_jaccard(texts[one], texts[other])
        for one, other in itertools.combinations(range(len(texts)), 2)
    }
    clear = [pair for pair, similarity in alike.items() if similarity > 0.82]  # three standard errors above
    assert len(clear) > 30
    assert not any(keep[one] and keep[other] for one, other in clear)
    possible = {row for pair, similarity in alike.items() if similarity > 0.56 for row in pair}
    assert all(keep[row] for row in range(len(texts)) if row not in possible)


@pytest.mark.parametrize(
    ("one", "other"),
    NEAR_COPIES,
)
def test_one_of_two_near_copies_stays_in_every_script(one: str, other: str) -> None:
    bystanders = ["Quite another sentence, about the weather in spring.", "今天天气很好,我们去公园散步吧。", "☺☺☺☺"]
    keep = kept([one, *bystanders, other])
    assert keep[1:4].all() and keep[0] != keep[4]


def test_what_stays_does_not_depend_on_the_order_of_rows(texts: list[str]) -> None:
    staying = {text for text, keep in zip(texts, kept(texts, 0.7), strict=True) if keep}
    assert len(staying) < len(texts)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(texts))
        shuffled = [texts[row] for row in order]
        assert {text for text, keep in zip(shuffled, kept(shuffled, 0.7), strict=True) if keep} == staying


def test_what_stays_of_a_group_depends_on_the_seed(texts: list[str]) -> None:
    assert not np.array_equal(kept(texts, 0.7, seed=0), kept(texts, 0.7, seed=1))


def test_groups_join_over_a_text_that_stands_between() -> None:
    signed = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 2], [1, 1, 1, 2, 2], [9, 9, 9, 9, 9]], np.uint32)
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
    groups = near_duplicate_groups(pairs, np.arange(4), signed, 0.8, 6)
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[2:].tolist())) == 4  # 3, 4 and 5 are alone
    assert keep_first(groups, np.array([5, 3, 4, 0, 2, 1], np.uint64)).tolist() == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]


def test_signatures_of_the_candidates_alone_give_the_same_groups(texts: list[str]) -> None:
    signed = signatures(texts, PLACES, 0)
    priority = np.arange(len(texts), dtype=np.uint64)
    pairs = candidate_pairs(band_keys(signed, *choose_bands(0.7, PLACES)), priority)
    candidates = np.unique(pairs)
    assert 0 < len(candidates) < len(texts) / 2 + 100
    few = near_duplicate_groups(pairs, candidates, signed[candidates], 0.7, len(texts))
    assert np.array_equal(few, near_duplicate_groups(pairs, np.arange(len(texts)), signed, 0.7, len(texts)))
    with pytest.raises(ValueError, match="needs its signature"):
        near_duplicate_groups(pairs, candidates, signed[candidates[1:]], 0.7, len(texts))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_or_no_texts_are_no_special_case(count: int) -> None:
    texts = ["one text about a cat", "a second one on birds", "and something else again"][:count]
    assert kept(texts).tolist() == [True] * count


def test_priorities_are_distinct_and_unlike_the_order_of_the_choice() -> None:
    ids = np.arange(10_000, dtype=np.int64)
    one = priorities(ids, 0)
    assert len(np.unique(one)) == len(ids)
    ranks = [
        order.argsort().argsort() for order in (one, priorities(ids, 1), seeded_key(ids, 0, b"embinv-select"), ids)
    ]
    correlations = np.corrcoef(ranks)[np.triu_indices(4, 1)]
    assert np.all(np.abs(correlations) < 0.05)  # five standard errors
