"""What a T5 learns in a step, and how its writing is judged: against sums by hand."""

import math

import numpy as np
import pytest
import torch

from embinv.data.pairs import Pairs
from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, final_state
from embinv.models.settings import ModelSettings
from embinv.models.t5_inverter import T5Inverter
from embinv.models.t5_settings import complete
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.loop import Progress, RunState, Validated, run
from embinv.training.optimizer import build_optimizer, split_parameters
from embinv.training.settings import TrainingSettings
from embinv.training.step import PARTS, TokenIds, draw, step_generator, to_tensors
from embinv.training.teacher_forcing import counted, forced_loss
from embinv.training.validation import validate_writer

PAD, EOS, V, DIM, LENGTH = 0, 1, 12, 6, 8
IDS = TokenIds(V, EOS, PAD)
CPU = torch.device("cpu")


def model(seed=0, **settings):
    torch.manual_seed(seed)
    chosen = ModelSettings(family="t5", size="tiny", pseudo_tokens=2, **settings)
    return T5Inverter(complete(chosen, V, DIM, LENGTH, (EOS, PAD)))


@pytest.fixture(scope="module")
def pairs():
    """24 texts of 1 to 8 tokens; the longest have no room for an end."""
    generator = np.random.default_rng(0)
    ids = generator.integers(2, V, (24, LENGTH)).astype(np.int32)
    for row in range(24):
        if (length := 1 + row % LENGTH) < LENGTH:
            ids[row, length], ids[row, length + 1 :] = EOS, PAD
    vectors = generator.standard_normal((24, DIM)).astype(np.float16)
    return Pairs(np.arange(24), [str(row) for row in range(24)], ["en"] * 24, ids, vectors)


def engine_of(network, **settings):
    return LocalEngine(network, build_optimizer(network, TrainingSettings(**settings)))


def test_a_text_counts_up_to_its_end(pairs):
    places = counted(torch.from_numpy(pairs.token_ids).long(), IDS)
    assert places.sum(dim=1).tolist() == [min(LENGTH, 2 + row % LENGTH) for row in range(24)]
    assert all(row.tolist() == sorted(row.tolist(), reverse=True) for row in places)


def test_an_end_that_is_the_padding_too_counts_once():
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    assert counted(ids, TokenIds(V, 0, 0)).tolist() == [[True] * 4 + [False] * 2]


def test_padding_without_an_end_counts_for_nothing():
    assert counted(torch.tensor([[5, 6, PAD, PAD]]), IDS).tolist() == [[True, True, False, False]]


def test_the_loss_is_the_cross_entropy_of_each_counted_token_given_those_before_it(pairs):
    network = model().eval()
    x_0, embedding = to_tensors(pairs, np.arange(24), CPU)
    settings = TrainingSettings()
    found = forced_loss(engine_of(network), x_0, embedding, IDS, settings, drawn(settings))
    each = -network(x_0, embedding).gather(-1, x_0.unsqueeze(-1)).squeeze(-1)
    places = counted(x_0, IDS)
    assert found.loss.item() == pytest.approx(each[places].sum().item() / x_0.numel(), rel=1e-5)
    for part in range(PARTS):
        inside = torch.tensor([int(place / LENGTH * PARTS) == part for place in range(LENGTH)])
        here = places & inside
        assert found.by_part[:, part].tolist() == pytest.approx([each[here].sum().item(), here.sum().item()], rel=1e-4)


def drawn(settings, rows=24):
    return draw(settings, rows, LENGTH, DIM, step_generator(0, 0, 0))


def test_the_mean_over_equal_parts_is_that_of_the_whole(pairs):
    network, noisy = model().eval(), TrainingSettings(embedding_noise=0.3)
    engine, draws = engine_of(network), drawn(noisy)

    def loss(rows, settings=noisy):
        part = slice(rows[0], rows[-1] + 1)
        return forced_loss(engine, *to_tensors(pairs, rows, CPU), IDS, settings, draws.take(part)).loss.item()

    parts = [loss(np.arange(start, start + 6)) for start in range(0, 24, 6)]
    assert sum(parts) / 4 == pytest.approx(loss(np.arange(24)), rel=1e-5)
    without = draw(TrainingSettings(), 24, LENGTH, DIM, step_generator(0, 0, 0))
    quiet = forced_loss(engine, *to_tensors(pairs, np.arange(24), CPU), IDS, noisy, without)
    assert abs(quiet.loss.item() - loss(np.arange(24))) > 1e-4


def test_validation_is_the_likelihood_and_what_it_writes_itself(pairs):
    network = model(seed=3).eval()
    found = validate_writer(network, pairs, IDS, 1, engine_of(network))
    x_0, embedding = to_tensors(pairs, np.arange(24), CPU)
    places = counted(x_0, IDS)
    each = -network(x_0, embedding).gather(-1, x_0.unsqueeze(-1)).squeeze(-1)
    assert (found.measure, found.n) == ("nll", 24)
    assert found.nats == pytest.approx(each[places].mean().item(), rel=1e-4)
    assert list(found.as_row()) == ["nll", "token_accuracy", "exact_match"]


def test_workers_share_the_held_out_texts_and_agree(pairs):
    network, shares = model(seed=3).eval(), []

    class Worker(LocalEngine):
        world = 3

        def __init__(self, rank):
            super().__init__(network, None)
            self.rank = rank

        def total(self, values):
            shares.append(values)
            return [sum(column) for column in zip(*shares, strict=True)]

    whole = validate_writer(network, pairs, IDS, 1, engine_of(network))
    *_, last = [validate_writer(network, pairs, IDS, 1, Worker(rank)) for rank in range(3)]
    assert last.n == whole.n and [share[0] for share in shares] == [8, 8, 8]
    assert (last.nats, last.token_accuracy) == pytest.approx((whole.nats, whole.token_accuracy), rel=1e-5)


def test_tokens_that_the_model_lacks_count_in_no_likelihood(pairs):
    network, ids = model(seed=3).eval(), TokenIds(V, EOS, PAD, other_id=V - 1)
    unknown = (pairs.token_ids == V - 1).sum() / (pairs.token_ids > EOS).sum()
    found = validate_writer(network, pairs, ids, 1, engine_of(network))
    assert found.unknown == pytest.approx(unknown, rel=1e-6) and 0 < unknown < 0.5
    x_0, embedding = to_tensors(pairs, np.arange(24), CPU)
    places = counted(x_0, ids) & (x_0 != V - 1)
    each = -network(x_0, embedding).gather(-1, x_0.unsqueeze(-1)).squeeze(-1)
    assert found.nats == pytest.approx(each[places].mean().item(), rel=1e-4)


def test_hidden_matrices_are_those_of_its_blocks_and_no_tables():
    matrices, others = split_parameters(model())
    assert len(matrices) == 2 * (4 + 2) + 2 * (8 + 2)  # of two blocks each: q k v o, once or twice, and two maps
    shapes = {tuple(weight.shape) for weight in others}
    assert (V, 64) in shapes and (32, 2) in shapes  # token embedding, relative positions


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loop_teaches_it_texts_by_heart(pairs, optimizer):
    network = model()
    settings = TrainingSettings(
        optimizer=optimizer,
        learning_rate=2e-3,
        batch_size=24,
        max_steps=300 if optimizer == "muon" else 500,
        validations=3,
        ema_decay=0.9,
    )
    engine = LocalEngine(network, build_optimizer(network, settings))
    ema, state = EMA(network, settings.ema_decay, settings.ema_share), RunState()
    events = list(run(engine, ema, pairs, pairs, IDS, settings, state))
    shown = [event for event in events if isinstance(event, Progress)]
    judged = [event.figures for event in events if isinstance(event, Validated)]
    assert judged[-1].exact_match == judged[-1].token_accuracy == 1.0
    assert judged[-1].nats < 0.1
    assert set(state.history[-1]) == {"step", "seconds", "nll", "token_accuracy", "exact_match"}
    assert all(math.isfinite(value) for value in (shown[-1].cross_entropy, shown[-1].loss_by_part[0]))
    request = DecodingRequest(torch.from_numpy(pairs.embeddings[:4]).float(), LENGTH, V, 1, end_ids=IDS.ends)
    written = final_state(decode_greedily(ema.model, request)).tokens
    assert torch.equal(written, torch.from_numpy(pairs.token_ids[:4]).long())
