import pytest
import torch

from benchmarks import utilisation
from benchmarks.loops import fresh, make_case
from embinv.training.flops import Peak, flops_per_sample


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_utilisation_is_a_step_s_arithmetic_over_the_product_that_was_timed_and_named(monkeypatch):
    case = make_case("tiny", 500, 16, ["training.precision=float32"], 1, 1.0, batch_size=4)
    products = iter([Peak(2e9, "the first product"), Peak(4e9, "a product that was timed")])
    monkeypatch.setattr(utilisation, "measured_peak", lambda *_: next(products))
    monkeypatch.setattr(utilisation, "steady_rate", lambda *_: 5.0)
    result = utilisation.utilisation_of(case, 1)
    model = fresh(case.model, 0)
    assert result["plain_product"] == "a product that was timed"
    assert result["utilisation"] == pytest.approx(5.0 * flops_per_sample(model) / 3e9, abs=1e-3)
    assert (result["precision"], result["parameters"]) == ("float32", sum(p.numel() for p in model.parameters()))
