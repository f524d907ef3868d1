"""Properties of the split: stable, of the stated shares, and blind to case and whitespace."""

import numpy as np
import pytest

from embinv.data.corpus import text_id
from embinv.data.split import CORRECTION, SPLITS, TRAIN, assign_split, assign_splits

TEXTS = [f"Record number {number} of the corpus" for number in range(20_000)]
PINNED = ["test", "train", "train", "train", "train", "train"]


def test_the_same_text_up_to_case_and_whitespace_is_in_the_same_split() -> None:
    for text in TEXTS[:500]:
        variants = [
            text,
            text.upper(),
            text.lower(),
            f"  {text}\n",
            text.replace(" ", "\t \u00a0"),
            f"\u200b{text}",
        ]
        assert len({assign_split(variant, 0.3, 0.3) for variant in variants}) == 1


@pytest.mark.parametrize(("validation", "test"), [(0.05, 0.05), (0.1, 0.2), (0.45, 0.45), (0.0, 0.3)])
def test_shares_are_met_within_five_standard_deviations(validation: float, test: float) -> None:
    counts = np.bincount(assign_splits(TEXTS, validation, test), minlength=len(SPLITS))
    for count, share in zip(counts, (1 - validation - test, validation, test, 0.0), strict=True):
        n = len(TEXTS)
        assert abs(count - n * share) <= 5 * (n * share * (1 - share)) ** 0.5


def test_a_share_of_zero_is_empty() -> None:
    assert {assign_split(text, 0.0, 0.0) for text in TEXTS[:2000]} == {"train"}
    assert "test" not in {assign_split(text, 0.5, 0.0) for text in TEXTS[:2000]}


def test_another_validation_share_moves_no_text_into_or_out_of_test() -> None:
    for text in TEXTS[:2000]:
        assert (assign_split(text, 0.05, 0.2) == "test") == (assign_split(text, 0.6, 0.2) == "test")


def test_a_larger_test_share_keeps_all_that_was_test() -> None:
    for text in TEXTS[:2000]:
        if assign_split(text, 0.1, 0.1) == "test":
            assert assign_split(text, 0.1, 0.3) == "test"


def test_a_share_for_correction_is_taken_from_train_alone() -> None:
    before, after = assign_splits(TEXTS, 0.1, 0.2), assign_splits(TEXTS, 0.1, 0.2, 0.3)
    moved = before != after
    assert {*zip(before[moved], after[moved], strict=True)} == {(TRAIN, CORRECTION)}
    assert abs(np.count_nonzero(after == CORRECTION) - 0.3 * len(TEXTS)) <= 5 * (0.21 * len(TEXTS)) ** 0.5


@pytest.mark.parametrize("shares", [(-0.1, 0.2, 0.2), (0.2, 0.2, -0.1), (0.3, 0.3, 0.4)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        assign_split("a text", *shares)


def test_the_split_is_independent_of_the_id() -> None:
    """Half of the texts with an even id are in test, as of all texts."""
    even = [text for text in TEXTS if text_id(text) % 2 == 0 and text_id(text) < 2**62]
    in_test = sum(assign_split(text, 0.0, 0.5) == "test" for text in even)
    assert abs(in_test - len(even) / 2) <= 5 * (len(even) / 4) ** 0.5


def test_splits_never_change() -> None:
    """Written by the first version: another hash would mix the splits of datasets on disk."""
    assert [assign_split(text, 0.3, 0.3) for text in TEXTS[:6]] == PINNED


@pytest.mark.parametrize(
    ("validation", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (0.9, 0.2), (float("nan"), 0.1)]
)
def test_impossible_shares_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="sum to less than 1"):
        assign_split("text", validation, test)
