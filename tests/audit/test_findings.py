"""embinv/audit/findings.py: sentences say the figures that they are of, and nothing that was not measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from embinv.audit.findings import findings, plain
from tests.audit.leaks import DEFENCES, bare_report, parts, report


def said(entries, *words):
    return any(all(word in sentence for word in words) for sentence in entries)


def test_the_summary_says_what_was_expected_found_and_recovered():
    summary = report()["summary"]
    assert said(summary, "Of 3 vectors", "2.0 ± 0.5")
    assert said(summary, "2 of 4 texts", "50.0% ± 25.0%", "last token")
    assert said(summary, "expected", "they agree")
    assert said(summary, "Of 3 labelled values, 1", "33.3%", "PERSON 33% of 3")
    assert said(summary, "7 pieces of personal data", "of the 7 in texts with an original, 2 stand in the originals")


def test_probabilities_that_were_wrong_are_not_relied_upon():
    leakage = parts()["leakage"]
    leakage["agreement"] |= {"agrees": False, "found": 40}
    assert said(report(leakage=leakage)["summary"], "do not agree", "do not rely")


def test_finds_are_confirmed_only_beside_those_in_texts_with_an_original():
    first = parts()["personal_data"][0] | {"found": 100}  # 93 of them in texts without an original
    second = first | {"kind": "URL", "found": 10, "confirmed": None, "unconfirmed": None}
    summary = report(personal_data=[first, second])["summary"]
    assert said(summary, "110 pieces", "of the 7 in texts with an original, 2 stand")
    assert said(report(personal_data=[second])["summary"], "10 pieces of personal data that patterns recognise.")


def test_vectors_without_a_text_are_counted_in_a_sentence_of_their_own():
    assert said(report(without_text=1200)["summary"], "1,200 vectors could not be inverted")
    assert not said(report()["summary"], "could not be inverted")


@pytest.mark.parametrize(("origin", "advised"), [({}, True), ({"refine_steps": 0}, True), ({"refine_steps": 5}, False)])
def test_calibrating_is_advised_only_where_it_can_give_probabilities(origin, advised):
    summary = report(origin=origin, leakage=parts()["leakage"] | {"by_probability": None})["summary"]
    assert said(summary, "calibrate it with") is advised
    assert said(summary, "were refined", "without --refine-steps") is not advised


def test_a_defence_leaks_what_its_worst_attacker_reads():
    row = DEFENCES["rows"][1] | {"leakage": {"token_f1": 0.5}, "adapted": {"token_f1": 0.4}}
    for attacker, who in (("leakage", "does not adapt"), ("rotation", "who knows pairs")):
        rows = [row | {"worst": {"attacker": attacker, "token_f1": 0.5, "token_f1_se": 0.03}}]
        assert said(report(defences={"rows": rows})["recommendations"], "50.0% ± 3.0%", who)


def test_nothing_is_said_of_what_was_not_measured():
    made = bare_report()
    assert len(made["summary"]) == 1 and "no calibrated probabilities" in made["summary"][0]
    assert said(made["recommendations"], "No defence was measured")
    assert not said(made["limits"], "defence is as good") and not said(made["limits"], "redacted")


def test_defences_on_the_front_are_named_with_what_leaks_to_an_attacker_who_adapts():
    advice = report()["recommendations"]
    assert said(advice, "noise (sigma 0.1)", "45.0% ± 2.0%", "who adapts", "nDCG@10 0.740", "1,536 bytes")
    assert not said(advice, "int8") and not said(advice, ": none")
    assert said(advice, "rotation", "known")


def test_a_defence_that_was_measured_against_one_attacker_alone_is_said_to_be():
    worst = {"attacker": "leakage", "token_f1": 0.3, "token_f1_se": 0.01}
    rows = [DEFENCES["rows"][1] | {"adapted": None, "worst": worst}]
    advice = report(defences={"rows": rows})["recommendations"]
    assert said(advice, "noise", "30.0%", "does not adapt") and said(advice, "expect less")


def test_limits_say_that_texts_are_a_sample_and_compared_by_words():
    limits = report(sampled=1000, unit="words")["limits"]
    assert said(limits, "1,000 of 1,234 rows", "seed 0") and said(limits, "compared by words")
    assert said(limits, "unlabelled names are not counted")


def test_redaction_is_called_no_proof_and_revealing_is_stated():
    settings = parts()["settings"]
    assert report()["revealed"] is False and said(report()["limits"], "redacted", "no proof")
    revealed = report(settings=settings | {"reveal": True})
    assert revealed["revealed"] is True and not said(revealed["limits"], "redacted")


def test_references_name_owasp_and_atlas():
    names = " ".join(each["name"] for each in report()["references"])
    assert "LLM08:2025" in names and "AML.T0024.001" in names


def test_what_a_caller_gives_becomes_plain_values():
    given = {"path": Path("a/b"), "n": np.int64(3), "x": np.float32(0.5), "bad": float("nan"), 5: (1, np.array([2.0]))}
    assert plain(given) == {"path": "a/b", "n": 3, "x": 0.5, "bad": None, "5": [1, [2.0]]}
    assert type(plain(np.int64(3))) is int
    json.dumps(findings(**parts(origin=given, recognition=given)), allow_nan=False)
