import sys

import numpy as np
import pytest
from pydantic import ValidationError

from embinv.audit.adaptation import AdaptationSettings, texts_held_back
from embinv.audit.pareto import on_front
from embinv.audit.sweep import DEFINITIONS, sweep
from embinv.audit.sweep_settings import SweepSettings
from embinv.defences.quantisation import Product
from embinv.encoders.hashing import HashEncoder
from embinv.inverter import DiffusionInverter
from tests.audit.attackers import DIM, SPEC, make_world

OFF = AdaptationSettings(steps=0)
NOTHING = {"noise": (), "int8": False, "binary": False, "product": (), "matryoshka": (), "pca": (), "rotation": False}
ENCODER = HashEncoder(SPEC)


def settings(**changes):
    """All defences at sizes for D 16, without retraining."""
    usual = {"product": (4, 8), "product_bits": 4, "known_pairs": (4, 16, 100, 10_000), "adaptation": OFF, "steps": 2}
    return SweepSettings(**(usual | changes))


def only(**changes):
    """Settings with no defence but those given."""
    return settings(**(NOTHING | changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def first_words(texts):
    return [[(0, len(text.split()[0]), "WORD")] for text in texts]


def entities_of(pairs):
    return [[("WORD", text.split()[0])] for text in pairs.texts]


@pytest.fixture(scope="module")
def whole(world):
    return sweep(
        world.oracle(),
        world.checkpoint,
        world.known,
        world.held_out,
        settings(),
        entities=entities_of(world.held_out),
        encoder=ENCODER,
        find_spans=first_words,
    )


def row(result, defence, setting=""):
    [found] = [each for each in result["rows"] if (each["defence"], each["setting"]) == (defence, setting)]
    return found


def test_every_defence_has_its_row_and_bytes_and_no_defence_comes_first(whole):
    assert [(each["defence"], each["setting"], each["bytes_per_vector"]) for each in whole["rows"]] == [
        ("none", "", 64),
        *(("noise", f"{scale:g} of the norm", 64) for scale in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)),
        ("int8", "", 16),
        ("binary", "", 2),
        ("product quantisation", "4x4", 2),
        ("product quantisation", "2x4", 1),
        *(("matryoshka", f"{kept} dimensions", 4 * kept) for kept in (8, 4, 2)),
        *(("PCA", f"{kept} dimensions", 4 * kept) for kept in (8, 4, 2)),
        ("rotation", "secret", 64),
        ("redaction", "", 64),
    ]


def test_without_a_defence_all_leaks_and_nothing_is_lost(whole):
    plain = whole["rows"][0]
    assert plain["leakage"] == {
        "token_f1": 1.0,
        "token_f1_se": 0.0,
        "exact_match": 1.0,
        "exact_match_se": 0.0,
        "entity_recall": 1.0,
        "entity_recall_se": 0.0,
    }
    assert (plain["ndcg_at_10"], plain["recall_at_10"]) == (1.0, 1.0)
    assert plain["adapted"] is None


def test_more_noise_leaks_less_and_finds_less(whole):
    rows = [each for each in whole["rows"] if each["defence"] in ("none", "noise")]
    found = [each["ndcg_at_10"] for each in rows]
    assert found == sorted(found, reverse=True) and found[-1] < 0.8
    leaked = [each["leakage"]["token_f1"] for each in rows]
    assert leaked[0] == leaked[1] == 1.0 > leaked[-1]


def test_a_rotation_costs_nothing_and_falls_to_as_many_pairs_as_dimensions(whole):
    turned = row(whole, "rotation", "secret")
    assert turned["ndcg_at_10"] == pytest.approx(1.0, abs=1e-3)
    assert turned["leakage"]["exact_match"] < 0.3
    assert [each["pairs"] for each in whole["rotation"]] == [4, 16, 100]  # there are no 10,000 texts
    shares = [each["f1_share"] for each in whole["rotation"]]
    assert shares[0] < 1.0
    assert shares[1:] == [1.0, 1.0]


def test_the_front_is_that_of_token_f1_and_ndcg_with_known_pairs_against_the_rotation(whole):
    rows = whole["rows"]
    leaked = {each["defence"] + each["setting"]: each["leakage"]["token_f1"] for each in rows}
    most = max(whole["rotation"], key=lambda each: each["token_f1"])
    leaked["rotationsecret"] = most["token_f1"]
    expected = on_front(list(leaked.values()), [each["ndcg_at_10"] for each in rows])
    assert [each["on_front"] for each in rows] == expected
    assert True in expected and False in expected
    assert [each["worst"]["token_f1"] for each in rows] == list(leaked.values())
    assert row(whole, "rotation", "secret")["worst"] == {
        "attacker": "rotation",
        "token_f1": most["token_f1"],
        "token_f1_se": most["token_f1_se"],
    }
    assert whole["rows"][0]["worst"]["attacker"] == "leakage"


def test_what_was_measured_is_said(whole):
    assert (whole["n"], whole["known"]) == (60, 300)
    assert SweepSettings.model_validate(whole["settings"]) == settings()
    assert whole["definitions"] == DEFINITIONS


def redacting(world, find_spans, **more):
    return sweep(
        world.oracle(),
        world.checkpoint,
        world.known,
        world.held_out,
        only(**more),
        encoder=ENCODER,
        find_spans=find_spans,
    )["rows"]


def test_a_redaction_that_finds_nothing_is_no_defence(world):
    plain, nothing = redacting(world, lambda texts: [[] for _ in texts])
    assert nothing["defence"] == "redaction"
    assert nothing["leakage"] == plain["leakage"]
    assert nothing["ndcg_at_10"] == pytest.approx(1.0, abs=1e-2)  # float16 in the pairs


def test_a_redaction_is_asked_with_the_vectors_of_whole_texts(world):
    _, redacted = redacting(world, first_words)
    assert redacted["recall_at_10"] < 0.5  # a hash has nothing of the words that are left
    assert redacted["leakage"]["exact_match"] < 0.2


def test_redaction_needs_encoder_finder_and_consent(world):
    given = (world.oracle(), world.checkpoint, world.known, world.held_out)
    for chosen, more in (
        (only(), {"encoder": ENCODER}),
        (only(), {"find_spans": first_words}),
        (only(redaction=False), {"encoder": ENCODER, "find_spans": first_words}),
    ):
        assert [each["defence"] for each in sweep(*given, chosen, **more)["rows"]] == ["none"]


def test_entities_go_with_their_texts_where_only_some_are_measured(world):
    found = sweep(
        world.oracle(),
        world.checkpoint,
        world.known,
        world.held_out,
        only(rows=20),
        entities=entities_of(world.held_out),
    )
    assert found["n"] == 20
    assert found["rows"][0]["leakage"]["entity_recall"] == 1.0


def test_entity_recall_is_left_out_where_nothing_is_labelled(world):
    nothing = [[] for _ in world.held_out.texts]
    found = sweep(world.oracle(), world.checkpoint, world.known, world.held_out, only(), entities=nothing)
    assert "entity_recall" not in found["rows"][0]["leakage"]


def test_who_adapts_has_his_own_figures_the_front_takes_the_worse_and_a_seed_gives_the_same(world):
    chosen = only(noise=(0.5,), pca=(2,), adaptation=AdaptationSettings(steps=2, batch_size=16))
    lines = []
    one, other = (
        sweep(
            DiffusionInverter(world.checkpoint, precision="float32"),
            world.checkpoint,
            world.known,
            world.held_out,
            chosen,
            encoder=ENCODER,
            find_spans=first_words,
            on_progress=lines.append,
        )
        for _ in range(2)
    )
    assert one == other
    assert lines[::2][:4] == ["none", "noise 0.5 of the norm", "PCA 8 dimensions", "redaction"]
    assert lines[1].startswith("- mapped back: unchanged; training ")
    rows = one["rows"]
    assert all(each["adapted"].keys() == each["leakage"].keys() for each in rows)
    assert any(each["adapted"] != each["leakage"] for each in rows)
    worst = [max(each[attacker]["token_f1"] for attacker in ("leakage", "adapted")) for each in rows]
    assert [each["on_front"] for each in rows] == on_front(worst, [each["ndcg_at_10"] for each in rows])
    assert [each["worst"]["token_f1"] for each in rows] == worst
    assert all(each[each["worst"]["attacker"]]["token_f1"] == each["worst"]["token_f1"] for each in rows)


def test_who_adapts_undoes_what_is_linear(world):
    chosen = only(rotation=True, adaptation=AdaptationSettings(steps=1, batch_size=16, learning_rate=1e-9))
    plain, turned = sweep(DiffusionInverter(world.checkpoint), world.checkpoint, world.known, world.held_out, chosen)[
        "rows"
    ]
    assert turned["adapted"]["token_f1"] == pytest.approx(plain["adapted"]["token_f1"], abs=0.02)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"product": (5,)}, "product 5: is no divisor of 16 dimensions"),
        ({"matryoshka": (1,)}, "matryoshka 1: give what 16 dimensions can be divided by"),
        ({"pca": (17,)}, "pca 17: give what"),
        ({"product": (4,), "product_bits": 9}, "512 centroids need as many vectors, got 300"),
        ({"pca": (2,), "known_rows": 7}, "7 vectors span fewer"),
        ({"strategy": "luck"}, "strategy 'luck' is unknown"),
        ({"adaptation": AdaptationSettings(batch_size=271)}, "less 30 held back, do not fill a step of 271"),
    ],
)
def test_settings_that_do_not_fit_the_vectors_are_refused_before_anything_is_measured(world, changes, sentence):
    oracle = world.oracle()
    with pytest.raises(ValueError, match=sentence):
        sweep(oracle, world.checkpoint, world.known, world.held_out, only(**changes))
    assert oracle.model.denoiser.calls == 0


def test_usual_settings_that_do_not_fit_the_vectors_are_left_out_and_said(world):
    few, lines = {name: off for name, off in NOTHING.items() if name not in ("product", "matryoshka", "pca")}, []
    chosen = SweepSettings(**few, adaptation=OFF, steps=2, known_rows=7)
    given = (world.oracle(), world.checkpoint, world.known, world.held_out, chosen)
    found = sweep(*given, on_progress=lines.append)
    assert {each["defence"] for each in found["rows"]} == {"none", "matryoshka", "PCA"}
    assert (
        found["changed"]
        == lines[:4]
        == [
            *(f"product {size} is left out: needs 256 texts of the attacker's own, there are 7" for size in (4, 8, 16)),
            "pca 2 is left out: needs 8 texts of the attacker's own, there are 7",
        ]
    )
    assert found["settings"]["product"] == [] and found["settings"]["pca"] == [4, 8]


def test_a_dimension_that_the_usual_sizes_do_not_divide_keeps_those_that_do():
    chosen, changed = SweepSettings().fitting(300, 5000)
    assert chosen.product == (4,)
    assert changed == [f"product {size} is left out: no divisor of 300 dimensions" for size in (8, 16)]
    assert [each.parts for each in chosen.defences(300) if isinstance(each, Product)] == [75]
    chosen, changed = SweepSettings().fitting(4, 5000)
    assert (chosen.product, chosen.matryoshka, chosen.pca) == ((4,), (2, 4), (2, 4)) and len(changed) == 4
    chosen.defences(4)


def test_settings_that_were_given_are_not_changed():
    given = SweepSettings(product=(5,), matryoshka=(40,), pca=(40,), adaptation=AdaptationSettings(batch_size=64))
    assert given.fitting(16, 20) == (given, [])
    bits = SweepSettings(product_bits=9)
    assert bits.fitting(384, 300) == (bits, [])  # refused when it is fitted
    assert SweepSettings().fitting(384, 5000) == (SweepSettings(), [])


def test_who_adapts_takes_smaller_steps_where_his_texts_do_not_fill_the_usual_ones():
    chosen, changed = SweepSettings(adaptation=AdaptationSettings(steps=3), product=(), pca=()).fitting(384, 50)
    assert (chosen.adaptation.batch_size, chosen.adaptation.steps) == (45, 3)
    assert changed == ["the attacker who adapts takes steps of 45 texts, as there are 50"]
    assert texts_held_back(50, chosen.adaptation) == 5


def test_vectors_of_another_encoder_entities_of_other_texts_and_too_few_are_refused(world):
    narrow = world.known.take(np.arange(20))
    object.__setattr__(narrow, "embeddings", narrow.embeddings[:, :8])
    with pytest.raises(ValueError, match=f"known vectors have 8 dimensions, this inverter takes {DIM}"):
        sweep(world.oracle(), world.checkpoint, narrow, world.held_out, only())
    with pytest.raises(ValueError, match="at least 11 held-out texts, got 10"):
        sweep(world.oracle(), world.checkpoint, world.known, world.held_out.take(np.arange(10)), only())
    with pytest.raises(ValueError, match="entities of 3 texts were given for 60"):
        sweep(world.oracle(), world.checkpoint, world.known, world.held_out, only(), entities=[[], [], []])


def test_without_faiss_a_sweep_says_what_to_do_at_once(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"pip install 'embinv\[audit\]'"):
        sweep(world.oracle(), world.checkpoint, world.known, world.held_out, only(int8=True))


@pytest.mark.parametrize("wrong", [{"noise": (0.0,)}, {"rows": 10}, {"known_pairs": (0,)}, {"luck": True}])
def test_settings_refuse_what_makes_no_sense(wrong):
    with pytest.raises(ValidationError):
        SweepSettings(**wrong)


def test_the_usual_sizes_for_384_dimensions_are_those_of_the_field():
    chosen = [(each.name, each.setting, each.bytes_per_vector(384)) for each in SweepSettings().defences(384)]
    assert ("product quantisation", "96x8", 96) in chosen
    assert ("product quantisation", "48x8", 48) in chosen
    assert ("product quantisation", "24x8", 24) in chosen
    assert ("matryoshka", "48 dimensions", 192) in chosen
    assert len(chosen) == 19
