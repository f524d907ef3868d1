import pytest
import torch
from torch import nn

from embinv.training.ema import EMA


def scalar(value, dtype=torch.float32):
    model = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.constant_(model.weight, value)
    return model


def test_average_equals_the_recursion_written_out():
    model, decay = scalar(0.0), 0.7
    ema, expected = EMA(model, decay, share=0.25), 0.0
    for update in range(12):
        nn.init.constant_(model.weight, float(update * update))
        ema.update(model.named_parameters())
        weight_of_the_past = min(decay, 1 - 1 / (1 + 0.25 * update))
        expected = weight_of_the_past * expected + (1 - weight_of_the_past) * update * update
        assert ema.model.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_average_lags_by_the_stated_share_of_the_run_however_long_it_is(share):
    # of weights that rise by 1 an update, the average after update k is k / (1 + share): the recursion's fixed point
    model = scalar(0.0)
    ema = EMA(model, 1 - 1e-9, share)
    for update in range(300):
        nn.init.constant_(model.weight, float(update))
        ema.update(model.named_parameters())
        assert ema.model.weight.item() == pytest.approx(update / (1 + share), rel=1e-4)


def test_average_spans_no_more_than_its_decay_allows():
    model, updates = scalar(0.0), 400
    ema = EMA(model, 0.9, share=1.0)
    for update in range(updates):
        nn.init.constant_(model.weight, float(update))
        ema.update(model.named_parameters())
    assert ema.model.weight.item() == pytest.approx(updates - 1 - 0.9 / 0.1, rel=1e-5)  # the lag of a fixed decay


def test_first_update_forgets_the_start():
    model = scalar(0.0)
    ema = EMA(model, 0.999)
    nn.init.constant_(model.weight, 1.0)
    ema.update(model.named_parameters())
    assert ema.model.weight.item() == 1.0


def test_average_of_bfloat16_weights_is_float32_and_moves_where_bfloat16_would_not():
    model, decay, value = scalar(1.0, torch.bfloat16), 0.9999, 1.0078125  # the next bfloat16 after 1
    ema = EMA(model, decay)
    ema.updates = 10**6  # the warm-up is over
    nn.init.constant_(model.weight, value)
    rounded = torch.tensor(1.0, dtype=torch.bfloat16)
    for _ in range(100):
        ema.update(model.named_parameters())
        rounded.lerp_(torch.tensor(value, dtype=torch.bfloat16), 1 - decay)
    assert rounded.item() == 1.0
    assert ema.model.weight.dtype == torch.float32
    assert ema.model.weight.item() == pytest.approx(1 + (value - 1) * (1 - decay**100), abs=6e-6)


def test_average_is_a_model_of_its_own_without_gradients_in_eval_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    ema = EMA(model, 0.9)
    before = [parameter.clone() for parameter in ema.model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, ema.model.parameters(), strict=True))
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_weights_that_the_model_does_not_have_are_refused():
    with pytest.raises(KeyError, match="stranger"):
        EMA(scalar(0.0), 0.9).update([("stranger", torch.zeros(1, 1))])
