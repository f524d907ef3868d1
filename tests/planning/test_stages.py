"""Plans of single stages in their limit cases: nothing to do, twice the GPUs, what bounds them, what does not fit."""

import pytest

from embinv.planning.accelerators import accelerator
from embinv.planning.encoder_size import encoder_size, transformer
from embinv.planning.encoding import encoder_tokens, plan_encoding
from embinv.planning.inversion import BATCH, plan_inversion
from embinv.planning.inverter_size import InverterSize
from embinv.planning.loads import part_of
from embinv.planning.roofline import exchange_seconds
from embinv.planning.training import plan_training
from tests.planning.loads import workload

A100, T4 = accelerator("a100-40g"), accelerator("t4")
ENCODER = encoder_size(workload().config.encoder)
BASE = InverterSize(
    parameters=210_000_000,
    matrices=57_000_000,
    training_flops=92e9,
    body_flops=24e9,
    head_flops=0.23e9,
    muon_flops=7e11,
    hidden=768,
    layers=8,
    positions=136,
    seq_len=128,
    vocabulary=151_669,
    writes_left_to_right=False,
)


def test_encoding_takes_the_flops_over_the_peak_and_the_assumed_share():
    load = workload(tokens=98.0, assume=["encode_mfu=0.5"])
    part = part_of(plan_encoding(load, ENCODER, A100), "encode")
    assert encoder_tokens(load) == 100
    assert part.expected == part.good == pytest.approx(2_000_000 * ENCODER.flops(100) / (312e12 * 0.5))


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_twice_the_gpus_halve_what_they_share(gpus):
    one, two = (workload(gpus=k, tokens=100.0) for k in (gpus, 2 * gpus))
    assert part_of(plan_encoding(two, ENCODER, A100), "encode").expected == pytest.approx(
        part_of(plan_encoding(one, ENCODER, A100), "encode").expected / 2
    )
    assert part_of(plan_training(two, BASE, A100), "passes").expected == pytest.approx(
        part_of(plan_training(one, BASE, A100), "passes").expected / 2
    )
    assert part_of(plan_inversion(two, BASE, A100), "decode").expected == pytest.approx(
        part_of(plan_inversion(one, BASE, A100), "decode").expected / 2
    )
    assert plan_inversion(two, BASE, A100).gpus == 2 * gpus


def test_with_nothing_to_do_only_the_start_is_left():
    load = workload(rows=0, vectors=0, steps=0, assume=["encode_start=5", "invert_start=7"])
    assert plan_encoding(load, ENCODER, A100).seconds == 5
    assert plan_inversion(load, BASE, A100).seconds == 7
    trained = plan_training(load, BASE, A100)
    assert all(part_of(trained, name).expected == 0 for name in ("passes", "exchange", "optimizer"))


def test_a_good_day_is_no_longer_than_most_days():
    load = workload(gpus=16, tokens=100.0)
    for plan in (plan_encoding(load, ENCODER, A100), plan_training(load, BASE, A100), plan_inversion(load, BASE, A100)):
        assert 0 < plan.good_seconds < plan.seconds
        assert all(part.good <= part.expected for part in plan.parts)


def test_a_small_encoder_waits_for_tokenisers_and_they_for_more_cores():
    tiny = transformer(1, 64, 128, 2, 1000, "a test")
    load = workload(tokens=100.0, assume=["cores_per_gpu=1"])
    plan = plan_encoding(load, tiny, A100)
    assert plan.limit == "tokenise" and part_of(plan, "encode") in plan.alongside
    assert plan.parts[1].expected == pytest.approx(2_000_000 * 100 * 4 * 0.85e-6)
    many = plan_encoding(workload(tokens=100.0, assume=["cores_per_gpu=16"]), tiny, A100)
    assert part_of(many, "tokenise").expected == pytest.approx(plan.parts[1].expected / 16)


def test_a_gpu_without_bfloat16_works_in_float32_and_says_so():
    plan = plan_encoding(workload(tokens=100.0), ENCODER, T4)
    assert plan.parts[1].expected == pytest.approx(2_000_000 * ENCODER.flops(102) / (8.1e12 * 0.35))
    assert any("t4 has no bfloat16" in warning for warning in plan.warnings)


def test_weights_that_are_read_again_and_again_are_bound_by_memory_or_by_kernels():
    writer = InverterSize(**{**vars(BASE), "writes_left_to_right": True, "body_flops": 1e6, "head_flops": 1e3})
    load = workload(vectors=BATCH, assume=["kernel_us=0", "bandwidth_share=1"])
    plan = plan_inversion(load, writer, A100)
    assert plan.limit == "memory"
    assert part_of(plan, "decode").expected == pytest.approx(128 * 2 * BASE.parameters / 1555e9)
    assert plan_inversion(workload(assume=["kernel_us=1000"]), writer, A100).limit == "kernels"


def test_training_is_steps_and_twice_the_steps_take_twice_as_long():
    one, two = (plan_training(workload(steps=steps), BASE, A100) for steps in (1000, 2000))
    assert (one.units, two.units) == (1000 * 1024, 2000 * 1024)
    for name in ("passes", "optimizer"):
        assert part_of(two, name).expected == pytest.approx(2 * part_of(one, name).expected)
    assert part_of(two, "save") == part_of(one, "save")  # as many as there are validations


def test_epochs_and_minutes_come_to_steps():
    load = workload(epochs=3)
    assert load.training_steps == round(3 * 1_920_000 / 1024)
    timed = plan_training(workload(minutes=30), BASE, A100)
    steps = sum(part_of(timed, name).expected for name in ("passes", "exchange", "optimizer", "validate"))
    assert steps == pytest.approx(30 * 60, rel=0.01)
    assert any("30 minutes end it after about" in note for note in timed.notes)


def test_what_does_not_fit_is_told_with_what_to_change():
    wide = plan_training(workload(sets=["training.batch_size=65536"]), BASE, accelerator("a10"))
    assert any("raise training.gradient_accumulation" in warning for warning in wide.warnings)
    odd = plan_training(workload(gpus=3), BASE, A100)
    assert any("(1,024) is no multiple of 3 workers x 1 passes" in warning for warning in odd.warnings)
    huge = plan_encoding(workload("qwen3-8b"), encoder_size(workload("qwen3-8b").config.encoder), accelerator("t4"))
    assert any("weights alone are 15.1 GB" in warning for warning in huge.warnings)
    assert plan_training(workload(gpus=8), BASE, A100).warnings == ()


def test_gradients_cross_the_network_only_where_there_is_more_than_a_node():
    within = exchange_seconds(1e9, 8, 8, link=300e9, network=10e9, share=0.5, hidden=0.0)
    across = exchange_seconds(1e9, 16, 8, link=300e9, network=10e9, share=0.5, hidden=0.0)
    assert within == pytest.approx(1e9 / 150e9) and across == pytest.approx(1e9 / 5e9)
    assert exchange_seconds(1e9, 16, 8, 300e9, 10e9, 0.5, hidden=1.0) == 0
    assert exchange_seconds(1e9, 1, 8, 300e9, 10e9, 0.5, 0.0) == 0
