"""Weights and FLOPs of inverters before they are trained, against the models themselves and PyTorch's counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from embinv.models.inverter_model import count_parameters
from embinv.models.mdlm import ConditionalMDLM
from embinv.planning.inverter_size import inverter_size, muon_flops
from embinv.training.flops import flops_per_pass, flops_per_sample
from embinv.training.muon import orthogonalise
from tests.planning.loads import workload

VOCABULARY = 300
TINY = ("model.size=tiny", "data.seq_len=16")


def tiny(*sets):
    return workload("minilm", [*TINY, *sets]).config


def test_sizes_are_those_of_the_model_itself():
    config = tiny()
    size = inverter_size(config, VOCABULARY)
    model = ConditionalMDLM(config.model.resolve(VOCABULARY, 384, 16))
    assert size.parameters == count_parameters(model)["total"]
    assert size.training_flops == flops_per_sample(model)
    assert (size.positions, size.hidden, size.layers) == (16 + 8, 64, 2)


def test_a_pass_counts_what_pytorch_counts_of_body_and_head():
    model = ConditionalMDLM(tiny().model.resolve(VOCABULARY, 384, 16)).eval()
    body, head = flops_per_pass(model)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros((1, 16), dtype=torch.int64), torch.ones((1, 384)))
    assert body + 16 * head == counter.get_total_flops()


def test_a_text_is_its_passes_and_the_tokens_that_are_still_hidden_in_each():
    size = inverter_size(tiny(), VOCABULARY)
    assert size.writing_flops(1) == size.body_flops + 16 * size.head_flops
    asked = [16, 12, 8, 4]  # in each of four passes
    assert size.writing_flops(4) == 4 * size.body_flops + sum(asked) * size.head_flops
    assert size.writing_flops(1000) == size.writing_flops(16)  # a pass a token is the most


def test_a_t5_reads_its_weights_once_a_token_and_does_the_work_of_one_pass():
    size = inverter_size(tiny("model.family=t5", "training.optimizer=adamw"), VOCABULARY)
    assert size.writes_left_to_right and size.passes(8) == 16
    assert size.writing_flops(8) == size.body_flops + 16 * size.head_flops


def test_checkpointed_activations_cost_a_third_more():
    plain, again = (
        inverter_size(tiny(*more), VOCABULARY) for more in ((), ("training.activation_checkpointing=true",))
    )
    assert again.training_flops == pytest.approx(plain.training_flops * 4 / 3)


def test_only_muon_has_matrices_of_its_own():
    muon, adamw = (inverter_size(tiny(f"training.optimizer={name}"), VOCABULARY) for name in ("muon", "adamw"))
    assert muon.matrices == 2 * (4 * 64 * 64 + 2 * 64 * 256) and muon.muon_flops > 0
    assert (adamw.matrices, adamw.muon_flops) == (0, 0)


@pytest.mark.parametrize("shape", [(64, 64), (64, 100), (64, 128), (256, 64), (32, 512)])
def test_muons_closed_form_counts_what_pytorch_counts(shape):
    counter = FlopCounterMode(display=False)
    with counter:
        orthogonalise(torch.empty(*shape, device="meta"))
    assert muon_flops(*shape) == counter.get_total_flops()


def test_a_backbone_is_not_guessed():
    with pytest.raises(ValueError, match=r"^model.backbone 'jhu-clsp/mmBERT-base': .*--set model.backbone=null"):
        inverter_size(workload("minilm", ["model.backbone=jhu-clsp/mmBERT-base", "model.size=base"]).config, 10)
