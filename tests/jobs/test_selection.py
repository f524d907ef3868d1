"""Which rows stay: decided on blocks in Ray's object store, against the same decision on one table."""

import numpy as np
import pyarrow as pa
import pytest
import ray

from embinv.data.corpus import select_rows, text_id
from embinv.data.settings import DataSettings
from jobs.selection import choose, survey
from jobs.texts import CLEANED_SCHEMA

pytestmark = pytest.mark.usefixtures("ray_cluster")

LONG = "The committee will meet on Thursday at noon in the old library to settle the budget of the coming year"


def block(rows):
    """rows: (text, lang, dropped)."""
    texts = [text for text, _, _ in rows]
    columns = {
        "id": [text_id(text) for text in texts],
        "text": texts,
        "lang": [lang for _, lang, _ in rows],
        "spans": [None] * len(rows),
        "dropped": [dropped for _, _, dropped in rows],
    }
    return pa.table(columns, schema=CLEANED_SCHEMA)


def chosen(blocks, **data):
    """The choice, and the texts that stay in their order."""
    settings = DataSettings(**data)
    refs = [survey.remote(ray.put(part), settings.near_duplicates, settings.seed) for part in blocks]
    choice = choose(ray.get([surveyed for surveyed, _ in refs]), [signed for _, signed in refs], settings)
    good = [row["text"] for part in blocks for row in part.to_pylist() if row["dropped"] is None]
    stay = {int(place): text for place, text in zip(choice.order, good, strict=True) if place >= 0}
    assert sorted(stay) == list(range(len(stay)))  # places are 0, 1, 2, ... and each is taken once
    assert choice.keep.tolist() == [place >= 0 for place in choice.order]
    return choice, [stay[place] for place in range(len(stay))]


def mixed(count, seed=0):
    generator = np.random.default_rng(seed)
    langs = np.where(generator.random(count) < 0.8, "en", "de")
    texts = [
        f"{lang} text {number}" for lang, number in zip(langs, generator.integers(0, count // 2, count), strict=True)
    ]
    return [(text, str(lang), None) for text, lang in zip(texts, langs, strict=True)]


def test_the_choice_is_that_of_one_table_however_rows_lie_in_blocks():
    rows = mixed(400)
    ids = np.array([text_id(text) for text, _, _ in rows])
    mask = select_rows(ids, np.array([lang for _, lang, _ in rows]), 60, 3)
    expected = {text for (text, _, _), stays in zip(rows, mask, strict=True) if stays}
    _, one = chosen([block(rows)], rows=60, seed=3)
    _, many = chosen([block(rows[start : start + 57]) for start in range(0, 400, 57)], rows=60, seed=3)
    _, turned = chosen([block(rows[::-1])], rows=60, seed=3)
    assert set(one) == expected and one == many == turned
    assert chosen([block(rows)], rows=60, seed=4)[1] != one


def test_every_row_is_counted_once():
    rows = [*mixed(200), ("", "en", "empty"), ("", "en", "too_short"), ("", "de", "too_short")]
    choice, stay = chosen([block(rows[:100]), block(rows[100:])], rows=50, near_duplicates=0.9)
    assert len(stay) == 50
    assert choice.dropped["empty"] == 1 and choice.dropped["too_short"] == 2
    assert len(stay) + choice.dropped.total() == len(rows)
    unique = {text for text, _, dropped in rows if dropped is None}
    assert choice.dropped["duplicate"] == 200 - len(unique)
    assert sum(choice.found.values()) == len(unique) - choice.dropped["near_duplicate"]


def test_found_counts_distinct_rows_by_language_wanted_or_not():
    rows = [("one", "en", None), ("ONE", "en", None), ("two", "en", None), ("drei", "de", None)]
    assert chosen([block(rows)], rows=2)[0].found == {"en": 2, "de": 1}


def test_near_copies_are_found_across_blocks_and_one_of_them_stays():
    near = [LONG, LONG.upper() + "!", LONG.replace("noon", "Noon,"), LONG + " again"]
    blocks = [block([(text, "en", None), (f"something else, number {n}", "en", None)]) for n, text in enumerate(near)]
    choice, stay = chosen(blocks, near_duplicates=0.8)
    assert sum(text in near for text in stay) == 1
    assert choice.dropped["near_duplicate"] + len(stay) + choice.dropped["duplicate"] == 8
    assert set(chosen(blocks[::-1], near_duplicates=0.8)[1]) == set(stay)  # nor does the order of blocks matter
    assert sum(text in near for text in chosen(blocks)[1]) == 4


def test_an_exact_copy_is_no_near_duplicate():
    rows = [(LONG, "en", None)] * 3
    choice, stay = chosen([block(rows[:1]), block(rows[1:])], near_duplicates=0.8)
    assert stay == [LONG] and +choice.dropped == {"duplicate": 2}


@pytest.mark.parametrize("near", [None, 0.8])
def test_blocks_without_a_good_row_are_no_special_case(near):
    bad = block([("", "en", "empty")])
    choice, stay = chosen([bad, block([(LONG, "en", None)]), bad, CLEANED_SCHEMA.empty_table()], near_duplicates=near)
    assert stay == [LONG] and +choice.dropped == {"empty": 2}
    choice, stay = chosen([bad], near_duplicates=near)
    assert stay == [] and choice.found == {}
