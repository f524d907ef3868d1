"""ZeRO's bytes against the paper's (Rajbhandari et al. 2020), and against a real run's files."""

import pytest

from embinv.planning.inverter_size import inverter_size
from embinv.planning.zero import Weights, activation_bytes, save_bytes, sent_bytes, state_bytes
from embinv.training.settings import TrainingSettings
from tests.planning.loads import workload

P, W = 7_500_000_000, 64  # figure 1 of the paper
GB = 1e9


def settings(stage, precision="bfloat16", **more):
    return TrainingSettings(zero_stage=stage, precision=precision, batch_size=64, **more)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_state_in_mixed_precision_is_figure_1_of_the_paper(stage, gigabytes):
    state = state_bytes(Weights(P), settings(stage), W)
    assert (state.total - state.average) / GB == pytest.approx(gigabytes, abs=0.06)
    assert state.average == 4 * P  # ours, beside what the paper counts


@pytest.mark.parametrize(
    ("stage", "bytes_each"), [(0, 2 + 2 + 12), (1, 2 + 2 + 12 / W), (2, 2 + (2 + 12) / W), (3, (2 + 2 + 12) / W)]
)
def test_each_stage_shares_out_what_the_paper_says(stage, bytes_each):
    state = state_bytes(Weights(P), settings(stage), W)
    assert state.weights + state.gradients + state.optimizer == pytest.approx(bytes_each * P)


def test_one_worker_holds_the_same_at_every_stage_of_the_paper():
    totals = {stage: state_bytes(Weights(P), settings(stage), 1).total for stage in range(4)}
    assert set(totals.values()) == {(16 + 4) * P}


def test_float32_weights_need_no_second_copy_but_at_stages_1_and_2():
    each = [state_bytes(Weights(100), settings(stage, "bfloat16-mixed"), 1).optimizer for stage in range(4)]
    assert each == [800, 1200, 1200, 800]


def test_muon_has_one_moment_where_adamw_has_two():
    muon = state_bytes(Weights(100, matrices=60), settings(0, "float32", optimizer="muon"), 1)
    assert muon.optimizer == 4 * 60 + 8 * 40


def test_what_is_offloaded_is_not_on_the_gpu():
    state = state_bytes(Weights(P), settings(3, offload_optimizer="cpu", offload_parameters="cpu"), W)
    assert state.optimizer == state.weights == 0 and state.gradients > 0


@pytest.mark.parametrize("stage", range(4))
def test_a_single_worker_sends_nothing(stage):
    assert sent_bytes(Weights(P), settings(stage), 1) == 0


def test_all_reduce_comes_to_twice_and_stage_3_to_three_times_the_weights():
    sent = [sent_bytes(Weights(P), settings(stage), W) for stage in range(4)]
    ring = (W - 1) / W
    assert sent[0] == pytest.approx(ring * 2 * 2 * P) and sent[3] == pytest.approx(ring * 3 * 2 * P)
    assert sent[1] == sent[2] == pytest.approx(sent[3])  # deepspeed reduces whole there, and gathers the weights


def test_accumulation_repeats_what_workers_do_not_keep():
    once, four = (
        [sent_bytes(Weights(P), settings(stage, gradient_accumulation=passes), W) for stage in range(4)]
        for passes in (1, 4)
    )
    assert [b / a for a, b in zip(once, four, strict=True)] == pytest.approx([1, 1, 3, 4])


def test_a_save_has_the_size_of_the_demos():
    size = inverter_size(workload("minilm").config, 3027)
    weights = Weights(6_588_116, size.matrices)  # 3,028 tokens, as the run said
    saved = save_bytes(weights, settings(0, "bfloat16-mixed", optimizer="muon"))
    assert saved == pytest.approx(66_525_487 + 26_357_376, rel=0.002)


def test_activations_are_34_bytes_a_position_width_and_layer_or_their_inputs_alone():
    assert activation_bytes(100, 64, 8, 2, checkpointed=False, low=True) == 34 * 2 * 100 * 64 * 8
    assert activation_bytes(100, 64, 8, 2, checkpointed=True, low=True) == 2 * 100 * 64 * (34 + 2 * 8)
    assert activation_bytes(100, 64, 8, 2, checkpointed=False, low=False) == 2 * 34 * 2 * 100 * 64 * 8
