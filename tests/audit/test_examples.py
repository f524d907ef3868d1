"""embinv/audit/examples.py: which texts a report shows, and that redacted ones say no more than they may."""

import numpy as np

from embinv.audit.examples import worst_examples
from embinv.audit.gathered import Gathered
from embinv.audit.leakage import by_words
from embinv.audit.rows import Rows
from embinv.audit.settings import AuditSettings

NAMES = ["ann", "bea", "carl", "dora"]


def examples(texts, probabilities, **settings):
    n = len(texts)
    gathered = Gathered(n, 0, ["en"], by_words())
    gathered.add(
        Rows(
            ids=list(range(100, 100 + n)),
            texts=texts,
            confidences=np.full(n, 0.5),
            probabilities=np.array(probabilities),
            originals=[None] * n,
            langs=["en"] * n,
        )
    )
    return worst_examples(gathered, AuditSettings(languages=["en"], **settings))


def test_redacted_texts_that_look_alike_are_shown_once_and_others_take_their_places():
    texts = [*(f"{name} owes money" for name in NAMES), "money owes money"]
    shown = examples(texts, [0.9, 0.8, 0.7, 0.6, 0.5], examples=2, k=2)
    assert [each["recovered"] for each in shown] == ["[WORD 1 ███] owes money", "money owes money"]
    assert [each["probability"] for each in shown] == [0.9, 0.5]


def test_revealed_texts_are_told_apart_by_what_was_hidden_and_equal_ones_are_shown_once():
    texts = [*(f"{name} owes money" for name in NAMES), "ann owes money"]
    shown = examples(texts, [0.5, 0.6, 0.7, 0.8, 0.9], reveal=True, k=2)
    assert [each["recovered"] for each in shown] == [f"{name} owes money" for name in ("ann", "dora", "carl", "bea")]
    assert [each["id"] for each in shown] == [104, 103, 102, 101]


def test_redacted_texts_have_no_ids():
    assert [each["id"] for each in examples([f"{name} owes money" for name in NAMES], [0.5] * 4, k=2)] == [None]
