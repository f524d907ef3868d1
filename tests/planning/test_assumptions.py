"""What is taken for granted can be changed by name, and only to what can be."""

import pytest

from embinv.planning.assumptions import ASSUMED, assumed


def test_a_good_day_is_no_worse_than_most_days():
    slower_if_larger = {"kernel_us", "encoder_kernels", "inverter_kernels", "compiled_kernels", "align_us"}
    slower_if_larger |= {name for name in ASSUMED if name.endswith("_start")} | {
        "text_ratio",
        "vector_ratio",
        "token_bytes",
    }
    for name, each in ASSUMED.items():
        assert each.good <= each.expected if name in slower_if_larger else each.good >= each.expected, name
        assert each.why


def test_a_persons_own_number_holds_on_every_day_and_leaves_the_others():
    found = assumed(["encode_mfu=0.6", "overlap=0"])
    assert (found["encode_mfu"].expected, found["encode_mfu"].good) == (0.6, 0.6)
    assert found["overlap"].good == 0 and found["train_mfu"] == ASSUMED["train_mfu"]
    assert ASSUMED["encode_mfu"].expected != 0.6


def test_a_share_may_be_all_and_what_is_none_may_be_more_than_one():
    found = assumed(["overlap=1", "scaling=1", "storage_mb=2000", "token_bytes=2"])
    assert [found[name].good for name in ("overlap", "scaling", "storage_mb", "token_bytes")] == [1, 1, 2000, 2]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("encode_mfv=0.6", "did you mean encode_mfu"),
        ("encode_mfu", "give a number, such as encode_mfu=0.35"),
        ("encode_mfu=much", "give a number"),
        ("encode_mfu=nan", "give a number"),
        ("encode_mfu=0", "must be above 0"),
        ("storage_mb=-3", "must be above 0"),
        ("overlap=3", "is a share, from 0 to 1, such as overlap=0; for percent give overlap=0.03"),
        ("encode_mfu=35", "for percent give encode_mfu=0.35"),
        ("tokens_share=5", "is a share"),
        ("text_ratio=1.5", "is a share"),
    ],
)
def test_what_cannot_be_assumed_is_told_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=f"^--assume {given}: .*{sentence}"):
        assumed([given])
