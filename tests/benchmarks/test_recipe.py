"""benchmarks/recipe.py: its runs train as the product does, its parts do what they say, its results add up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.recipe import CONFIG, calibrate, list_variants, steps_of
from benchmarks.recipe import Plan as RecipePlan
from benchmarks.recipe_parts import SelfConditionedMDLM
from benchmarks.recipe_results import (
    PACE,
    Run,
    differences,
    draw,
    is_done,
    read_results,
    result_file,
    table,
    write_result,
)
from benchmarks.recipe_run import Trainee, measure, read_data, timed_steps
from benchmarks.recipe_variants import BASE, COMBINED, SETTINGS, VARIANTS, choose
from embinv.config import load_config
from embinv.data.tokenizer import content
from embinv.encoders.hashing import HashEncoder
from embinv.training.loop import RunState, run
from embinv.training.lr_schedule import SCHEDULES
from embinv.training.validation import validate
from tests.fakes import awaken, hash_spec, pairs_of, recipe_for, sentences, word_tokenizer, write_pairs

ROOT = Path(__file__).resolve().parents[2]
DIM, LENGTH = 16, 8
TINY = ("model.size=tiny", "model.pseudo_tokens=2", "training.batch_size=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pairs data set of hash vectors, as the encode job leaves one."""
    home = tmp_path_factory.mktemp("recipe")
    tokenizer, encoder = word_tokenizer(home / "words"), HashEncoder(hash_spec(DIM))
    texts = sentences(60)
    for split, some in (("train", texts[:40]), ("validation", texts[40:])):
        write_pairs(
            home / "pairs", recipe_for(tokenizer, encoder.spec, LENGTH), pairs_of(some, tokenizer, encoder), split
        )
    return home / "pairs"


@pytest.fixture(scope="module")
def data(folder):
    return read_data(folder, 20)


def trainee(data, variant=VARIANTS[0], *overrides):
    config = load_config(CONFIG, [*SETTINGS, *TINY, *variant.overrides, *overrides])
    return Trainee(variant, config, data)


def named(name):
    [variant] = (variant for variant in VARIANTS if variant.name == name)
    return variant


# --- what is compared


def test_every_variant_is_a_valid_config_that_differs_from_the_base():
    base = load_config(CONFIG, list(SETTINGS))
    for variant in VARIANTS:
        config = load_config(CONFIG, [*SETTINGS, *variant.overrides])
        assert (config != base) == bool(variant.overrides), variant.name
        assert (variant.name != BASE) == bool(variant.overrides or variant.parts), variant.name
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)


def test_the_base_always_runs_and_what_is_asked_for_may_be_a_group_or_a_name():
    assert [variant.name for variant in choose(["attention", "batch-64"])] == [
        BASE,
        "rope-off",
        "qk-norm-off",
        "batch-64",
    ]
    assert len(choose([])) == len(VARIANTS)


def test_variants_are_combined_with_their_settings_and_parts():
    [_, both] = choose([], [["both", "batch-64", "self-conditioning", "batch-128"]])
    assert (both.group, both.overrides, both.model) == (COMBINED, ("training.batch_size=128",), SelfConditionedMDLM)
    assert both.generation is named("self-conditioning").generation


@pytest.mark.parametrize(
    ("only", "combined", "message"),
    [
        (["bathc"], [], "--only 'bathc'"),
        ([], [["base", "batch-64"]], "give a new name"),
        ([], [["new", "nothing"]], "no variant 'nothing'"),
        ([], [["new", "self-conditioning", "adaln-ungated"]], "bring a model of their own"),
    ],
)
def test_what_cannot_be_chosen_is_refused(only, combined, message):
    with pytest.raises(ValueError, match=message):
        choose(only, combined)


def test_only_what_can_cost_something_has_a_pace_of_its_own():
    keys = {variant.name: variant.cost_key for variant in VARIANTS}
    assert keys["muon-0.02"] == keys["cosine"] == keys["ema-0.999"] == keys["weight-nelbo"] == keys[BASE]
    assert keys["batch-128"] == keys["batch-128-rates-x2"]
    assert keys["noise-0.1"] == keys["times-uniform"] == keys[BASE]  # a few random numbers a text
    assert len({keys[n] for n in (BASE, "batch-64", "adaln-ungated", "mask-reference", "adamw-0.001")}) == 5


# --- training


def test_the_base_trains_bit_for_bit_as_the_product_does(data):
    ours, theirs = (trainee(data, VARIANTS[0], "training.max_steps=6", "training.validations=1") for _ in range(2))
    ours.train(None, 6, lambda *_: None)
    list(run(theirs.engine, theirs.ema, data.training, data.held_out, data.ids, theirs.settings, RunState()))
    expected = dict(theirs.ema.model.named_parameters())
    moved = [name for name, weight in ours.ema.model.named_parameters() if not torch.equal(weight, expected[name])]
    assert moved == []


def test_training_by_time_uses_its_time_and_makes_the_rate_rise_and_fall_by_it(data):
    subject, shares, rates = trainee(data), [], []
    step = subject.engine.step
    subject.engine.step = lambda rate: rates.append(rate) or step(rate)
    spent = subject.train(1.0, None, lambda share, left, what: shares.append(share))
    assert 1.0 <= spent["seconds"] < 5
    assert spent["steps"] == len(shares) == len(rates) > 5
    assert spent["samples"] == 8 * spent["steps"]
    assert shares == sorted(shares)
    settings = subject.settings
    schedule = SCHEDULES[settings.schedule]
    middles = [min(1.0, share * (1 + 0.5 / max(1, made))) for made, share in enumerate(shares)]  # half a step later
    assert rates == pytest.approx([schedule(share, settings.warmup, settings.decay) for share in middles])
    assert max(rates) == 1.0
    assert rates[0] < 0.5 > rates[-1]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_takes_a_step_and_can_be_measured(data, variant):
    subject = trainee(data, variant, "model.size=tiny", "training.batch_size=8")
    before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
    spent = subject.train(None, 3, lambda *_: None)
    assert (spent["steps"], spent["skipped"]) == (3, 0)
    assert any(not torch.equal(weight, before[name]) for name, weight in subject.model.named_parameters())
    measured = measure(subject)
    assert measured["held_out_texts"] == 20
    assert np.isfinite(measured["figures"]["nelbo"])


def test_the_reference_never_hides_the_end_of_a_text(data):
    subject = trainee(data, named("mask-reference"))
    ends, seen = torch.tensor([data.ids.eos_id, data.ids.pad_id]), []
    loss = subject.engine.loss

    def watch(z_t, embedding, positions, targets, weights):
        seen.append((z_t, positions, targets, weights))
        return loss(z_t, embedding, positions, targets, weights)

    subject.engine.loss = watch
    for _ in range(20):
        subject.step(0.5)
    targets = torch.cat([row[2] for row in seen])
    hidden = sum(int(row[1].sum()) for row in seen)
    of_content = sum(int((~torch.isin(z_t, ends)).sum()) for z_t, *_ in seen)
    assert not torch.isin(targets, ends).any()
    assert 0.05 < hidden / of_content < 0.15
    assert all(float(weights.sum()) == pytest.approx(1.0) for *_, weights in seen if len(weights))


# --- measuring


def test_figures_are_those_of_the_product_s_own_validation(data):
    subject = trainee(data)
    awaken(subject.ema.model)
    measured = measure(subject)
    ends = (data.ids.eos_id, data.ids.pad_id)
    theirs = validate(subject.ema.model, data.held_out, data.ids, 1, subject.engine)
    assert measured["figures"]["nelbo"] == pytest.approx(theirs.nats, abs=1e-4)
    right, lengths = (sum(map(int, measured[name].split())) for name in ("right", "lengths"))
    assert measured["figures"]["token_accuracy_8_passes"]["value"] == pytest.approx(right / lengths, abs=1e-5)
    assert lengths == sum(len(content(row, ends)) for row in data.held_out.token_ids.tolist())


def test_fewer_held_out_texts_than_asked_for_are_refused(folder):
    with pytest.raises(ValueError, match="--texts"):
        read_data(folder, 21)


# --- results


def kept(folder, name="base", seed=0, right="4 3 0", group="base", **fields):
    counts = [int(count) for count in right.split()]
    value = sum(counts) / 12
    figures = {
        name: {"value": value, "standard_error": 0.1}
        for name in ("token_accuracy_8_passes", "token_accuracy_1_passes", "exact_match")
    }
    figures |= {"nelbo": 2.5, "gap_filling_at_10%_mask": 0.7, "gap_filling_at_50%_mask": 0.5}
    content = {
        "variant": name,
        "group": group,
        "overrides": [] if name == BASE else ["training.decay=0.2"],
        "parts": [],
        "seed": seed,
        "credited": "wall clock",
        "minutes": 1.0,
        "data": "english/pairs",
        "held_out_texts": 3,
        "threads": 2,
        "settings": {"model": {"size": "small"}, "training": {"decay": 0.4}},
        "steps": 1234,
        "samples_per_second": 80.0,
        "figures": figures,
        "right": right,
        "lengths": "4 4 4",
        **fields,
    }
    write_result(result_file(folder, name, seed), content)
    return content


def test_a_difference_is_taken_text_by_text():
    base = Run({"right": "4 3 0 1", "lengths": "4 4 4 4"})
    same = Run({"right": "4 3 0 1", "lengths": "4 4 4 4"}).over(base)
    assert (same.value, same.standard_error, same.n) == (0.0, 0.0, 4)
    shifted = Run({"right": "4 4 1 2", "lengths": "4 4 4 4"}).over(base)
    each = np.array([0, 1, 1, 1]) / 4
    assert shifted.value == pytest.approx(each.mean())
    assert shifted.standard_error == pytest.approx(each.std(ddof=1) / 2)


def test_the_table_holds_every_run_sorted_within_its_group(tmp_path):
    kept(tmp_path)
    kept(tmp_path, seed=1, right="4 4 0")
    kept(tmp_path, "decay-0.2", right="0 0 0", group="schedule")
    kept(tmp_path, "decay-0.7", right="4 4 4", group="schedule")
    kept(tmp_path, "mine", right="4 4 1", group=COMBINED)
    lines = table(read_results(tmp_path)).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[1] for row in rows[2:]] == [BASE, BASE, "decay-0.7", "decay-0.2", "mine"]
    assert len({len(row) for row in rows}) == 1
    assert rows[4][7].startswith("+41.7 ±")
    assert rows[5][7].startswith("-58.3 ±")
    assert rows[2][7] == ""
    assert "2 seeds" in "\n".join(lines)


def test_luck_of_the_seed_is_added_where_the_base_has_several(tmp_path):
    kept(tmp_path)
    kept(tmp_path, "decay-0.2", right="4 4 0", group="schedule")
    [alone] = differences(read_results(tmp_path)).values()
    assert "luck of the seed is not in it" in table(read_results(tmp_path))
    kept(tmp_path, seed=1, right="4 4 1")
    runs = read_results(tmp_path)
    [over] = differences(runs).values()
    spread = np.var([7 / 12, 9 / 12], ddof=1)
    assert over.value == alone.value
    assert over.standard_error == pytest.approx(np.sqrt(alone.standard_error**2 + 2 * spread))
    assert "the base's 2 seeds" in table(runs)
    assert "luck of the seed" not in table(runs)


@pytest.mark.parametrize("field", ["minutes", "credited", "threads", "data", "held_out_texts"])
def test_results_that_cannot_be_compared_are_refused_by_name(tmp_path, field):
    kept(tmp_path)
    kept(tmp_path, "decay-0.2", group="schedule", **{field: 99})
    with pytest.raises(ValueError, match=f"with {field} 99 and base-seed0.json"):
        read_results(tmp_path)


def test_the_picture_is_drawn_from_result_files(tmp_path):
    kept(tmp_path)
    kept(tmp_path, "decay-0.2", right="0 0 0", group="schedule")
    draw(read_results(tmp_path), tmp_path / "sub" / "recipe.png")
    assert (tmp_path / "sub" / "recipe.png").read_bytes().startswith(b"\x89PNG")


def test_no_results_are_told_as_that(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": 2.0}, "minutes 1.0, not 2.0"),
        ({"credited": "equal time at measured pace"}, "credited 'wall clock'"),
        ({"settings": {"model": {}, "training": {"decay": 0.7}}}, "training.decay 0.4, not 0.7"),
    ],
)
def test_a_run_made_otherwise_is_not_taken_for_done(tmp_path, change, message):
    made = kept(tmp_path)
    path = result_file(tmp_path, BASE, 0)
    assert is_done(path, made)
    assert is_done(path, made | {"settings": {"model": {}, "training": {"added_since": 1}}})
    assert not is_done(result_file(tmp_path, BASE, 1), made)
    with pytest.raises(ValueError, match=message):
        is_done(path, made | change)


# --- the pace


def plan(folder, paced=True):
    return RecipePlan(folder, 1.0, LENGTH, 20, 1, paced)


def test_steps_follow_from_the_base_s_pace_and_the_ratio_measured_beside_it():
    pace = {"kinds": {BASE: {"seconds": 0.1, "ratio": 1.0}, "training.batch_size=64": {"seconds": 0.5, "ratio": 2.0}}}
    assert steps_of(VARIANTS[0], 1.0, pace) == steps_of(named("cosine"), 1.0, pace) == 600
    assert steps_of(named("batch-64"), 1.0, pace) == 300


def test_steps_are_timed_one_by_one(data):
    subject = trainee(data)
    seconds = timed_steps(subject, 4)
    assert (len(seconds), subject.steps) == (4, 4)
    assert min(seconds) > 0


def test_a_pace_of_another_machine_setting_is_refused(tmp_path, folder):
    write_result(tmp_path / PACE, {"threads": 7, "data": "x/y", "settings": {}, "kinds": {}})
    with pytest.raises(ValueError, match="made with threads 7, not 1"):
        calibrate(plan(folder), [VARIANTS[0]], tmp_path / PACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"optimizer": "adamw"}}, "made with training.optimizer 'adamw', not 'muon'"),
        ({"model": {"size": "base"}}, "made with model.size 'base', not 'small'"),
        (None, "does not say with which settings it was made"),
    ],
)
def test_a_pace_of_another_base_is_refused(tmp_path, folder, change, message):
    same = {"threads": 1, "data": f"{folder.parent.name}/{folder.name}", "kinds": {BASE: {"seconds": 0.1, "ratio": 1}}}
    kept_settings = {"settings": {"model": {}, "training": {}} | change} if change else {}
    write_result(tmp_path / PACE, same | kept_settings)
    with pytest.raises(ValueError, match=message):
        calibrate(plan(folder), [VARIANTS[0]], tmp_path / PACE)


def test_a_pace_of_the_same_base_is_taken(tmp_path, folder):
    kinds = {BASE: {"seconds": 0.1, "ratio": 1.0}}
    settings = load_config(CONFIG, [*SETTINGS, "training.minutes=77"]).model_dump(mode="json")
    del settings["training"]["minutes"]
    same = {"threads": 1, "data": f"{folder.parent.name}/{folder.name}", "settings": settings, "kinds": kinds}
    write_result(tmp_path / PACE, same)
    assert calibrate(plan(folder), [VARIANTS[0]], tmp_path / PACE)["kinds"] == kinds


def test_the_list_says_what_is_done_and_how_long_the_rest_takes(tmp_path):
    kept(tmp_path)
    lines = list_variants(choose(["cosine"]), [0], tmp_path, 59.0).splitlines()
    assert [line.split()[2] == "done" for line in lines[:-1]] == [True, False]
    assert "1 runs to make, about 1 h 00 min" in lines[-1]


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_the_command_makes_what_is_missing_once_and_shows_it(folder, tmp_path):
    command = [sys.executable, "benchmarks/recipe.py", "--minutes", "0.01", "--seq-len", str(LENGTH), "--threads", "1"]
    command += ["--pairs", str(folder), "--texts", "20", "--out", str(tmp_path), "--only", "cosine", "batch-16"]

    def call(*flags):
        return subprocess.run([*command, *flags], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)

    made = call("--pace", "--seeds", "0")
    assert made.returncode == 0, made.stderr
    rows = [json.loads(line) for line in made.stdout.splitlines()]
    assert [row["variant"] for row in rows] == [BASE, "cosine", "batch-16"]
    kinds = json.loads((tmp_path / "0.01min-L8" / PACE).read_text())["kinds"]
    assert kinds.keys() == {BASE, "training.batch_size=16"}
    assert rows[0]["steps"] == rows[1]["steps"] == max(1, round(0.6 / kinds[BASE]["seconds"]))
    assert rows[0]["credited"] == "equal time at measured pace"
    again = call("--pace", "--seeds", "0")
    assert (again.returncode, again.stdout) == (0, "")
    assert "0 runs to make, 3 done before" in again.stderr
    otherwise = call()
    assert otherwise.returncode == 2
    assert "credited 'equal time at measured pace', not 'wall clock'" in otherwise.stderr
    assert "| cosine | schedule=cosine |" in call("--table").stdout
    assert call("--draw").returncode == 0
    assert (tmp_path / "recipe.png").is_file()
