import math

import pytest
import torch
from torch import nn

from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import token_weights
from embinv.training.engine import LocalEngine, prepare
from embinv.training.settings import TrainingSettings
from embinv.training.step import to_tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch(toy):
    x_0, embedding = to_tensors(toy.pairs, range(8), CPU)
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0.2, 1.0, 8)
    z_t, hidden = mask_tokens(x_0, t, toy.ids.mask_id, generator)
    return x_0, embedding, z_t, hidden, 1 / t


def make_pass(engine, batch):
    x_0, embedding, z_t, hidden, weight = batch
    loss, _ = engine.loss(z_t, embedding, hidden, x_0[hidden], token_weights(weight, hidden))
    engine.backward(loss)


def one_step(engine, batch, parts):
    for rows in torch.arange(8).chunk(parts):
        make_pass(engine, [part[rows] for part in batch])
        norm = engine.step(0.5)
    return norm


def gradient_descent(engine, accumulation=1, clipping=0.0):
    """The engine's model under plain SGD, since AdamW's first step is the gradient's sign: rounding is a whole step."""
    optimizer = torch.optim.SGD(engine.model.parameters(), lr=1.0)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    return LocalEngine(engine.model, optimizer, accumulation, clipping)


def weights_of(engine):
    return {name: weight.detach().clone() for name, weight in engine.weights()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("clipping", [0.0, 0.1])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_over_parts_equals_one_batch_of_them_all(toy, batch, clipping, parts):
    whole, _ = toy.start(TrainingSettings(optimizer="adamw"))
    split, _ = toy.start(TrainingSettings(optimizer="adamw"))
    start = weights_of(whole)
    norms = []
    for engine, accumulation in ((whole, 1), (split, parts)):
        norms.append(one_step(gradient_descent(engine, accumulation, clipping), batch, accumulation))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert not same(weights_of(whole), start)


def test_weights_move_at_the_last_pass_of_an_accumulation_only_and_the_norm_comes_with_it(toy, batch):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw", batch_size=8, gradient_accumulation=2))
    moved, norms = [], []
    for _ in range(4):
        before = weights_of(engine)
        make_pass(engine, batch)
        norms.append(engine.step(1.0))
        moved.append(not same(weights_of(engine), before))
    assert moved == [False, True, False, True]
    assert [norm is None for norm in norms] == [True, False, True, False]


def linear_engine(clipping, accumulation=1):
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    return LocalEngine(model, optimizer, accumulation, clipping)


def pull(engine, *gradient):
    engine.backward((engine.model.weight * torch.tensor(gradient)).sum())


@pytest.mark.parametrize(("clipping", "length"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_gradient_is_clipped_to_its_norm_and_only_if_it_is_longer(clipping, length):
    engine = linear_engine(clipping)
    pull(engine, 3.0, 4.0, 0.0)
    assert engine.step(0.25) == pytest.approx(5.0)  # before clipping
    assert engine.model.weight.norm().item() == pytest.approx(length * 2.0 * 0.25, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("clipping", [0.0, 1.0])
def test_gradient_that_is_not_finite_moves_nothing_and_is_forgotten(bad, clipping):
    engine = linear_engine(clipping)
    pull(engine, bad, 1.0, 0.0)
    assert not math.isfinite(engine.step(1.0))
    assert engine.model.weight.tolist() == [[0.0, 0.0, 0.0]]
    pull(engine, 0.0, 0.5, 0.0)
    assert engine.step(1.0) == pytest.approx(0.5)
    assert engine.model.weight.tolist() == [[0.0, -1.0, 0.0]]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_one_broken_pass_drops_the_whole_accumulation_and_the_next_counts_anew(broken):
    engine = linear_engine(0.0, accumulation=3)
    for made in range(3):
        pull(engine, 9.0, math.nan if made == broken else 9.0, 9.0)
        norm = engine.step(1.0)
        assert (norm is None) == (made < 2)
    assert not math.isfinite(norm)
    assert engine.model.weight.tolist() == [[0.0, 0.0, 0.0]]
    norms = []
    for _ in range(3):
        pull(engine, 0.0, 3.0, 0.0)
        norms.append(engine.step(1.0))
    assert norms == [None, None, pytest.approx(3.0)]
    assert engine.model.weight.tolist() == [[0.0, -6.0, 0.0]]


def test_saved_state_restores_weights_and_optimizer(toy, batch, tmp_path):
    settings = TrainingSettings(optimizer="muon")
    engine, _ = toy.start(settings)
    one_step(engine, batch, 1)
    engine.save(tmp_path)
    one_step(engine, batch, 1)
    restored, _ = toy.start(settings, seed=1)
    restored.load(tmp_path)
    one_step(restored, batch, 1)
    assert same(weights_of(engine), weights_of(restored))


def test_alone_a_total_and_an_agreement_are_the_values_themselves():
    engine = linear_engine(0.0)
    assert (engine.rank, engine.world) == (0, 1)
    assert engine.total([1.0, 2.5]) == [1.0, 2.5]
    assert engine.agree(3.5) == 3.5


def engine_in(toy, precision):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    return LocalEngine(engine.model, engine.optimizer, precision=precision)


@pytest.mark.parametrize(("precision", "products"), [("float32", torch.float32), ("bfloat16-mixed", torch.bfloat16)])
def test_products_are_of_the_named_precision_and_weights_and_gradients_of_float32(toy, batch, precision, products):
    engine, seen = engine_in(toy, precision), []
    linear = next(module for module in engine.model.modules() if isinstance(module, nn.Linear))
    linear.register_forward_hook(lambda module, given, answer: seen.append(answer.dtype))
    make_pass(engine, batch)
    assert seen == [products]
    assert {p.grad.dtype for p in engine.model.parameters() if p.grad is not None} == {torch.float32}
    norm, exact = engine.step(1.0), one_step(engine_in(toy, "float32"), batch, 1)
    assert norm == pytest.approx(exact, rel=2**-6)
    assert {weight.dtype for _, weight in engine.weights()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "auto", "float16"])
def test_precision_that_it_does_not_compute_in_is_refused_with_those_that_it_does(toy, precision):
    with pytest.raises(ValueError, match=f"precision {precision} .* choose float32 or bfloat16-mixed"):
        engine_in(toy, precision)


@pytest.mark.parametrize("asked", [False, True])
def test_blocks_run_as_the_settings_say(toy, asked, monkeypatch):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    compiled = []
    monkeypatch.setattr(engine.model, "compile_blocks", lambda: compiled.append(True))
    prepare(engine.model, TrainingSettings(activation_checkpointing=asked, compile=asked))
    assert engine.model.checkpoint_activations is asked
    assert compiled == [True] * asked
