"""Older versions are read through one function a step, newer ones are refused, and nothing is changed on the way."""

import copy

import pytest

from embinv.data.versions import brought_up

STEPS = {1: lambda tree: {"b": tree["a"]}, 2: lambda tree: {**tree, "c": tree["b"] * 2}}


def up(tree, newest=3, upgrades=STEPS):
    return brought_up(tree, "version", upgrades, newest, "runs/x")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"version": 1, "a": 5}, {"version": 3, "b": 5, "c": 10}),
        ({"version": 2, "b": 6}, {"version": 3, "b": 6, "c": 12}),
        ({"version": 3, "c": 1}, {"version": 3, "c": 1}),
    ],
)
def test_each_version_comes_to_the_newest_and_stays_what_it_was_itself(tree, expected):
    before = copy.deepcopy(tree)
    assert up(tree) == expected
    assert tree == before


def test_going_in_two_steps_comes_to_the_same_as_in_one():
    first = up({"version": 1, "a": 5}, 2, {1: STEPS[1]})
    assert first["version"] == 2 and up(first) == up({"version": 1, "a": 5})


def test_a_newer_version_names_the_release_to_install_where_it_says_it():
    with pytest.raises(ValueError, match=r"^runs/x: version 4, .* 1 to 3; .* install embinv 9\.1 or newer$"):
        up({"version": 4, "written_by": "9.1"})
    with pytest.raises(ValueError, match="install the embinv that wrote it, or a newer one$"):
        up({"version": 4})


@pytest.mark.parametrize(
    "tree", [{}, [], None, {"version": "1"}, {"version": None}, {"version": True}, {"version": 1.0}]
)
def test_what_has_no_version_is_refused(tree):
    with pytest.raises(ValueError, match="is no number; this embinv reads 1 to 3"):
        up(tree)


def test_what_is_older_than_all_that_is_known_is_refused():
    with pytest.raises(ValueError, match="version 0, this embinv reads 1 to 3; make it anew"):
        up({"version": 0})
