"""What is removed from a test set, against brute force over all pairs of texts."""

import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from embinv.data.corpus import identity_key
from embinv.data.held_out import NUM_PERM, SEED, THRESHOLD, HeldOut, remove_known
from embinv.data.near_duplicates import choose_bands, signatures
from embinv.data.pairs import Pairs
from embinv.data.settings import DataSettings
from tests.near_copies import NEAR_COPIES

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ALPHABETS = {
    "en": "etaoinshrdlu",
    "ru": "оеаинтсрвлкм",
    "ar": "ابتثجحخدذرزس",
    "ko": "가나다라마바사아자차카타파하고노도",
    "zh": "的一是不了人我在有他这中大来上国个到说们",
    "ja": "あいうえおかきくけこ日本語学校東京",
    "hi": "कखगघचछजझटठडढत",
}


def pairs_of(texts: list[str], first_id: int = 0) -> Pairs:
    """Pairs whose every column tells the rows apart."""
    ids = np.arange(first_id, first_id + len(texts))
    return Pairs(
        ids=ids,
        texts=texts,
        langs=[f"lang-{number}" for number in ids],
        token_ids=np.tile(ids[:, None], (1, 4)).astype(np.int32),
        embeddings=np.tile(ids[:, None], (1, 3)).astype(np.float16),
    )


def left(test: list[str], training: list[str], threshold: float = THRESHOLD) -> HeldOut:
    return remove_known(pairs_of(test), pairs_of(training, first_id=1000), threshold)


def changed(text: str, rng: random.Random, times: int) -> str:
    for _ in range(times):
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(text) + text[place + 1 :]
    return text


@pytest.fixture(scope="module")
def texts() -> tuple[list[str], list[str]]:
    """300 held-out texts in seven languages, two of three copied into 400 training texts with 0 to 7 changes."""
    rng = random.Random(0)
    test, training = [], []
    for number in range(300):
        lang = list(ALPHABETS)[number % len(ALPHABETS)]
        words = ["".join(rng.choices(ALPHABETS[lang], k=rng.randint(2, 7))) for _ in range(rng.randint(6, 20))]
        test.append(("" if lang in ("zh", "ja") else " ").join(words))
        if number % 3:
            training.append(changed(test[-1], rng, number % 8))
        if number % 3 == 1:
            training.append(changed(test[-1], rng, 3))
    rng.shuffle(training)
    return test, training


def brute_force(test: list[str], training: list[str], threshold: float) -> tuple[set[int], set[int]]:
    """Rows that have a copy, and the other rows that share a band with a text of an estimate at the threshold."""
    keys = {identity_key(text) for text in training}
    exact = {row for row, text in enumerate(test) if identity_key(text) in keys}
    bands, rows = choose_bands(threshold, NUM_PERM)
    near = set()
    theirs = signatures(training, NUM_PERM, SEED)
    for row, own in enumerate(signatures(test, NUM_PERM, SEED)):
        for other in theirs:
            equal = own == other
            alike = equal.sum() >= threshold * NUM_PERM
            if alike and any(equal[band * rows : (band + 1) * rows].all() for band in range(bands)):
                near.add(row)
    return exact, near - exact


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_what_goes_is_what_a_comparison_of_all_pairs_finds(texts, threshold):
    test, training = texts
    exact, near = brute_force(test, training, threshold)
    assert len(exact) > 10 and len(near) > 10 and len(exact | near) < 250
    found = left(test, training, threshold)
    assert found.pairs.ids.tolist() == [row for row in range(len(test)) if row not in exact | near]
    assert (found.exact, found.near, found.threshold) == (len(exact), len(near), threshold)


def test_rows_that_stay_keep_their_order_and_all_their_values(texts):
    test, training = texts
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = pairs_of(test).take(order)
    found = remove_known(shuffled, pairs_of(training)).pairs
    staying = set(left(test, training).pairs.ids.tolist())
    expected = shuffled.take(np.array([place for place, row in enumerate(order) if row in staying]))
    assert 0 < len(found) < len(test)
    assert found.ids.tolist() == expected.ids.tolist()
    assert (found.texts, found.langs) == (expected.texts, expected.langs)
    for column in ("token_ids", "embeddings"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))
        assert getattr(found, column).dtype == getattr(expected, column).dtype


@pytest.mark.parametrize("block", [1, 7, 333, 10_000])
def test_blocks_do_not_matter(texts, block):
    test, training = (pairs_of(each) for each in texts)
    whole, cut = remove_known(test, training), remove_known(test, training, block=block)
    assert cut.pairs.ids.tolist() == whole.pairs.ids.tolist()
    assert (cut.exact, cut.near) == (whole.exact, whole.near)


@pytest.mark.parametrize(
    ("own", "copy"),
    [
        ("Anna paid two coins.", "ANNA  paid\ttwo coins. "),
        ("Anna paid two coins.", "Anna\u200b paid two coins."),
        ("Die Straße war lang.", "DIE STRASSE WAR LANG."),
        ("Ämter schließen früh.", "A\u0308mter schließen früh."),
        ("☺☺ ☹☹", "☺☺  ☹☹"),  # no letters, and so no n-grams
    ],
)
def test_a_copy_in_other_case_spacing_or_composition_is_exact(own, copy):
    found = left([own, "Nobody knows what came of it."], ["Quite another text.", copy])
    assert found.pairs.ids.tolist() == [1]
    assert (found.exact, found.near) == (1, 0)


@pytest.mark.parametrize(
    ("own", "copy"),
    NEAR_COPIES,
)
def test_a_near_copy_goes_and_unrelated_texts_stay_in_every_script(own, copy):
    bystanders = ["Quite another sentence, about the weather in spring.", "今天天气很好,我们去公园散步吧。", "☺☺☺☺"]
    found = left([*bystanders, own], ["Something else entirely, in no way like it.", copy, "☹☹☹☹"])
    assert found.pairs.texts == bystanders
    assert (found.exact, found.near) == (0, 1)


def test_a_text_with_a_copy_and_a_near_copy_counts_as_exact():
    text = "The committee met on Tuesday to discuss the new budget."
    found = left([text, text + "!"], ["The committee met on Tuesday to discuss a new budget.", text.upper()])
    assert (len(found.pairs), found.exact, found.near) == (0, 1, 1)


def test_copies_within_a_set_do_not_matter():
    text = "The committee met on Tuesday to discuss the new budget."
    found = left([text, text.upper(), text + " Again."], ["Another text about a cat.", "Another text about a cat."])
    assert found.pairs.ids.tolist() == [0, 1, 2]
    assert (found.exact, found.near) == (0, 0)


def test_copies_of_one_training_text_all_go():
    text = "The committee met on Tuesday to discuss the new budget."
    found = left([text, text.upper(), text + "!", "Not this one."], [text])
    assert found.pairs.ids.tolist() == [3]
    assert (found.exact, found.near) == (2, 1)


def test_nothing_may_be_left(texts):
    test, _ = texts
    found = left(test, [text.upper() for text in test])
    assert (found.exact, found.near) == (len(test), 0)
    assert (found.pairs.texts, found.pairs.langs) == ([], [])
    assert found.pairs.token_ids.shape == (0, 4) and found.pairs.embeddings.shape == (0, 3)


@pytest.mark.parametrize(("test", "training"), [([], ["a text about a cat"]), (["a text about a cat"], []), ([], [])])
def test_empty_sets_are_no_special_case(test, training):
    found = left(test, training)
    assert found.pairs.texts == test
    assert (found.exact, found.near) == (0, 0)


@pytest.mark.parametrize("at_once", [1, 17])
def test_pairs_of_a_shared_band_can_be_compared_a_few_at_a_time(monkeypatch, texts, at_once):
    stem = "The committee met on Tuesday to discuss the new budget. "
    test = texts[0] + [f"{stem}{text[:12]}" for text in texts[0][:60]]  # and share many bands
    training = texts[1] + [f"{stem}{text[:12]}" for text in texts[1][:80]]
    whole = left(test, training)
    monkeypatch.setattr("embinv.data.held_out._PAIRS_AT_ONCE", at_once)
    few = left(test, training)
    assert few.pairs.ids.tolist() == whole.pairs.ids.tolist()
    assert (few.exact, few.near) == (whole.exact, whole.near)


def test_progress_says_how_many_of_how_many_are_done(texts):
    test, training = texts
    lines: list[str] = []
    remove_known(pairs_of(test), pairs_of(training), on_progress=lines.append, block=250)
    counts = [f"{min(done, len(training)):,} of {len(training):,} training" for done in (250, 500)]
    assert len(lines) == 2
    assert all(count in line for count, line in zip(counts, lines, strict=True))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.3, 1.5])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        left(["a text about a cat"], ["another text"], threshold)


def test_near_means_what_it_means_to_a_corpus():
    from jobs import selection

    assert (selection.NUM_PERM, DataSettings().seed) == (NUM_PERM, SEED)
    given = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in CONFIGS.glob("*.yaml"))
    assert {config.get("data", {}).get("near_duplicates", THRESHOLD) for config in given} == {THRESHOLD}
