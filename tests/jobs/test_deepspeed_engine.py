"""DeepSpeed on two CPU workers against one plain process: every ZeRO stage and precision, and what can go wrong in it.

Tolerances: in float32 only the order of sums differs, which is a few 1e-7 of a loss or norm. A bfloat16 number is
within 2^-9 of what it stands for; a loss is a mean of many of them, a norm stands on gradients that were rounded
twice, once more when workers exchange them.
"""

import math
from functools import cache

import pytest
import torch

from jobs.deepspeed_engine import BFLOAT16_SUMS, deepspeed_config, require_exact_sums
from tests.jobs.deepspeed_cases import Case, on_workers, plainly, ranks_of, settings, universal
from tests.jobs.one_worker import norms, on_a_gpu
from tests.jobs.training_runs import distance

STAGES, PRECISIONS = (0, 1, 2, 3), ("float32", "bfloat16-mixed", "bfloat16")
LOSS = {"float32": 1e-5, "bfloat16-mixed": 2**-8, "bfloat16": 2**-8}
NORM = {"float32": 1e-5, "bfloat16-mixed": 2**-6, "bfloat16": 2**-6}
BROKEN = frozenset({(0, 0, 1), (3, 1, 0)})  # the first pass of all on one worker; the last of step 3 on the other
IN_CI = [each if each != "bfloat16-mixed" else pytest.param(each, marks=pytest.mark.nightly) for each in PRECISIONS]
EVERY_STAGE = [pytest.mark.parametrize("stage", STAGES), pytest.mark.parametrize("precision", IN_CI)]

slow = [pytest.mark.slow, pytest.mark.timeout(900)]


def kinds(**changes):
    return {
        "plain": Case(settings(gradient_clipping=0.0, **changes), steps=10),
        "clipped": Case(settings(gradient_clipping=0.2, **changes)),
        "accumulated": Case(settings(gradient_accumulation=2, **changes)),
        "skipped": Case(settings(gradient_accumulation=2, **changes), no_loss=BROKEN),
        "overflowing": Case(settings(gradient_accumulation=2, **changes), no_gradient=BROKEN),
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Returns a function (precision, stage, kind) -> the workers' outcomes, and that of the plain process."""

    @cache
    def of_workers(precision):
        cases = {
            (stage, kind): case
            for stage in STAGES
            for kind, case in kinds(precision=precision, zero_stage=stage).items()
        }
        outcomes = on_workers(2, list(cases.values()), tmp_path_factory.mktemp(precision))
        return dict(zip(cases, outcomes, strict=True))

    @cache
    def of_one(precision, kind):
        return plainly(kinds(precision=precision)[kind])

    return lambda precision, stage, kind: (of_workers(precision)[stage, kind], of_one(precision, kind))


def every_stage(test):
    for mark in (*EVERY_STAGE, *slow):
        test = mark(test)
    return test


def assert_same_training(found, expected, precision="float32"):
    """Workers agree on all that they hold, and went the way of the plain process."""
    for outcome in found:
        assert outcome.moved == expected.moved
        assert outcome.losses == pytest.approx(expected.losses, rel=LOSS[precision], nan_ok=True)
        finite = [norm for norm in outcome.norms if math.isfinite(norm)]
        assert finite == pytest.approx([n for n in expected.norms if math.isfinite(n)], rel=NORM[precision])
        assert {n: (w.shape, w.dtype) for n, w in outcome.end.items()} == {
            n: (w.shape, torch.float32) for n, w in expected.end.items()
        }
        assert all(torch.equal(weight, found[0].end[name]) for name, weight in outcome.end.items())
    if precision == "float32":
        assert distance(found[0].end, expected.end) < 1e-3 * distance(expected.start, expected.end)


@every_stage
def test_workers_train_as_one_process_does(compared, precision, stage):
    for kind in ("plain", "accumulated"):
        found, expected = compared(precision, stage, kind)
        assert_same_training(found, expected, precision)
        assert all(expected.moved)
    found, _ = compared(precision, stage, "plain")
    assert sum(found[0].losses[-3:]) < 0.8 * sum(found[0].losses[:3])


@every_stage
def test_norm_is_that_before_clipping(compared, precision, stage):
    found, expected = compared(precision, stage, "clipped")
    assert_same_training(found, expected, precision)
    assert min(found[0].norms) > 10 * 0.2


@every_stage
def test_batch_without_a_finite_loss_leaves_nothing_behind_on_any_worker(compared, precision, stage):
    found, expected = compared(precision, stage, "skipped")
    assert_same_training(found, expected, precision)
    assert expected.moved == [False, True, True, False, True, True]


@every_stage
def test_gradient_that_is_not_finite_moves_no_weight_and_is_told(compared, precision, stage):
    found, expected = compared(precision, stage, "overflowing")
    assert_same_training(found, expected, precision)
    for outcome in found:
        assert [math.isfinite(norm) for norm in outcome.norms] == [False, True, True, False, True, True]
        assert outcome.moved == [False, True, True, False, True, True]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_of_a_bfloat16_model_are_its_float32_masters(compared, stage):
    found, _ = compared("bfloat16", stage, "plain")
    assert any((weight != weight.bfloat16().float()).any() for weight in found[0].end.values())


# --- what is asked for by config


CONFIGURED = {
    "muon": Case(settings(optimizer="muon", gradient_accumulation=2), no_loss=BROKEN),
    "untied head, stage 3": Case(settings(zero_stage=3), tied_head=False),
    **{f"T5, stage {stage}": Case(settings(zero_stage=stage), family="t5", no_loss=BROKEN) for stage in STAGES},
    "corrector, stage 3": Case(settings(zero_stage=3), family="mdlm_corrector"),
    "T5 corrector, stage 3": Case(settings(zero_stage=3), family="t5_corrector"),
    "T5, made again": Case(settings(activation_checkpointing=True, gradient_accumulation=2), family="t5"),
}
ELSEWHERE = {  # or at another time
    **{
        f"offloaded optimizer, stage {stage}": Case(
            settings(zero_stage=stage, offload_optimizer="cpu", gradient_accumulation=2), no_loss=BROKEN
        )
        for stage in (1, 2, 3)
    },
    "offloaded parameters": Case(settings(zero_stage=3, offload_parameters="cpu"), no_loss=BROKEN),
    "both offloaded": Case(
        settings(zero_stage=3, offload_parameters="cpu", offload_optimizer="cpu", gradient_accumulation=2),
        no_gradient=BROKEN,
    ),
    **{
        f"activations made again, stage {stage}": Case(
            settings(zero_stage=stage, activation_checkpointing=True, gradient_accumulation=2), no_loss=BROKEN
        )
        for stage in STAGES
    },
    **{
        f"compiled, stage {stage}": Case(
            settings(zero_stage=stage, compile=True, activation_checkpointing=stage == 3), no_loss=BROKEN
        )
        for stage in STAGES
    },
}


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    outcomes = on_workers(2, list(CONFIGURED.values()), tmp_path_factory.mktemp("configured"))
    return dict(zip(CONFIGURED, outcomes, strict=True))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    outcomes = on_workers(2, list(ELSEWHERE.values()), tmp_path_factory.mktemp("elsewhere"))
    return dict(zip(ELSEWHERE, outcomes, strict=True))


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_family_and_optimizer_trains_as_one_process_does(configured, name):
    expected = plainly(CONFIGURED[name])
    if name == "muon":  # its iteration is in bfloat16
        assert configured[name][0].losses == pytest.approx(expected.losses, rel=1e-4, nan_ok=True)
        assert configured[name][0].moved == expected.moved
    else:
        assert_same_training(configured[name], expected)


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_where_things_lie_and_when_they_are_computed_changes_nothing(elsewhere, name):
    # a plain process computes all once, in place, as it is written
    assert_same_training(elsewhere[name], plainly(ELSEWHERE[name]))


def test_offload_is_told_to_deepspeed():
    config = deepspeed_config(settings(zero_stage=3, offload_parameters="cpu", offload_optimizer="cpu"), 2)
    assert config["zero_optimization"] == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": False},
        "offload_param": {"device": "cpu", "pin_memory": False},
    }
    assert deepspeed_config(settings(zero_stage=1), 2)["zero_optimization"] == {"stage": 1}


def test_parts_of_a_batch_multiply_to_the_whole():
    config = deepspeed_config(settings(batch_size=24, gradient_accumulation=3), 2)
    assert config["train_batch_size"] == 24
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 3


# --- another number of workers


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three steps of two workers at each stage, saved; and, from stage 1 on, what fits any number of workers."""
    folder = tmp_path_factory.mktemp("saved")
    cases = [
        # decay strong enough to show whether each group of weights kept its own
        Case(settings(zero_stage=stage, weight_decay=10.0), steps=3, save=folder / f"two-{stage}")
        for stage in STAGES
    ]
    on_workers(2, cases, folder)
    for stage in STAGES[1:]:
        universal(folder / f"two-{stage}", stage, folder / f"any-{stage}")
    return cases, folder


@pytest.fixture(scope="module")
def gone_on(saved, tmp_path_factory):
    """Returns a function (workers, stage) -> outcomes of three more steps, and the plain process's."""
    first, folder = saved
    later = {
        world: [
            Case(
                case.settings,
                steps=3,
                first=3,
                load=folder / f"{'any' if stage else 'two'}-{stage}",
                universal=stage > 0,
                save=folder / f"later-{world}-{stage}",
            )
            for stage, case in enumerate(first)
        ]
        for world in (1, 3)
    }

    @cache
    def of_workers(world):
        return on_workers(world, later[world], tmp_path_factory.mktemp(f"world-{world}"))

    def compare(world, stage):
        return of_workers(world)[stage], plainly(first[stage], (later[world][stage], batches(world)))

    return compare


def batches(world):
    """Whose batches a step is made of."""
    return tuple(rank for of_worker in ranks_of(world) for rank in of_worker)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.nightly), 3])
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_state_of_two_workers_goes_on_with_another_number(gone_on, world, stage):
    assert_same_training(*gone_on(world, stage))


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_what_is_saved_after_that_is_an_ordinary_state(gone_on, saved, tmp_path):
    gone_on(3, 0)
    first, folder = saved
    later = [Case(case.settings, steps=3, first=3) for case in first]
    last = [Case(case.settings, steps=2, first=6, load=folder / f"later-3-{stage}") for stage, case in enumerate(first)]
    for stage, found in enumerate(on_workers(3, last, tmp_path)):
        expected = plainly(first[stage], (later[stage], batches(3)), (last[stage], batches(3)))
        assert_same_training(found, expected)


# --- sums of gradients


def bfloat16(stage, passes, **changes):
    return settings(
        precision="bfloat16", zero_stage=stage, gradient_accumulation=passes, batch_size=2 * passes, **changes
    )


OFFLOADED = {"offload_optimizer": "cpu"}
IN_FLOAT32 = [(2, {}), (3, {}), (3, OFFLOADED)]
IN_BFLOAT16 = [(0, {}), (1, {}), (1, OFFLOADED), (2, OFFLOADED)]


@pytest.mark.parametrize(("stage", "changes"), IN_FLOAT32)
def test_a_bfloat16_model_s_gradients_are_added_up_in_float32_where_deepspeed_can(stage, changes):
    many = bfloat16(stage, 64, **changes)
    require_exact_sums(many)
    assert deepspeed_config(many, 2)["data_types"] == {"grad_accum_dtype": "fp32"}
    assert deepspeed_config(bfloat16(stage, 1, **changes), 2)["data_types"] == {}  # nothing is added up


@pytest.mark.parametrize(("stage", "changes"), IN_BFLOAT16)
def test_many_of_them_are_refused_where_it_cannot(stage, changes):
    require_exact_sums(bfloat16(stage, BFLOAT16_SUMS, **changes))
    many = bfloat16(stage, 2 * BFLOAT16_SUMS, **changes)
    with pytest.raises(ValueError, match=r"gradients of 16 passes .* set it to 8 at most, .* bfloat16-mixed"):
        require_exact_sums(many)
    assert deepspeed_config(many, 2)["data_types"] == {}
    require_exact_sums(many.model_copy(update={"precision": "bfloat16-mixed"}))


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_sum_of_many_equal_passes_is_that_pass(tmp_path):
    cases = [*IN_FLOAT32, (1, {})]
    changes = [
        {
            "precision": "bfloat16",
            "zero_stage": stage,
            "gradient_accumulation": passes,
            "gradient_clipping": 0.0,
            **more,
        }
        for stage, more in cases
        for passes in (1, 64)
    ]
    found = norms(changes, tmp_path)
    pairs_of_norms = dict(zip(map(str, cases), zip(found[::2], found[1::2], strict=True), strict=True))
    for name in map(str, IN_FLOAT32):
        once, summed = pairs_of_norms[name]
        assert summed == pytest.approx(once, rel=1e-5), name
    once, rounded = pairs_of_norms[str((1, {}))]
    assert abs(rounded - once) > 1e-4 * once  # what is refused


# --- on a GPU


@pytest.mark.gpu
def test_one_worker_on_a_gpu_trains_as_a_plain_process_does(tmp_path):
    found, expected = on_a_gpu(Case(settings(device="cuda", compile=False)), tmp_path)
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert found.norms == pytest.approx(expected.norms, rel=1e-4)
    assert distance(found.end, expected.end) < 0.01 * distance(expected.start, expected.end)
