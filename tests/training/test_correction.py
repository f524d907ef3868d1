"""What correctors learn in a step, and how they are judged: against sums by hand, and by learning a rule."""

import json

import numpy as np
import pytest
import torch

from embinv.data.corrections import Corrections
from embinv.data.pairs import Pairs
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_model
from embinv.training.correction import WHOLE
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.examples import recover_examples
from embinv.training.loop import RunState, Validated, run
from embinv.training.objective import OBJECTIVES
from embinv.training.optimizer import build_optimizer
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds, draw, step_generator, to_tensors
from embinv.training.teacher_forcing import counted
from tests.correctors import FAMILIES, tiny_corrector
from tests.correctors import settings as chosen

PAD, EOS, V, DIM, LENGTH = 0, 1, 12, 6, 8
IDS = TokenIds(V, EOS, PAD)
CPU = torch.device("cpu")


def rows(n, seed=0):
    """Texts of 3 to 6 tokens whose hypotheses have one token wrong; the difference of the vectors says which."""
    generator = np.random.default_rng(seed)
    ids = np.full((n, LENGTH), PAD, dtype=np.int32)
    own = generator.standard_normal((n, DIM)).astype(np.float32)
    wanted = own.copy()
    hypotheses = ids.copy()
    for row in range(n):
        length = 3 + row % 4
        ids[row, :length] = generator.integers(2, V, length)
        ids[row, length] = EOS
        hypotheses[row] = ids[row]
        place = row % 3
        hypotheses[row, place] = 2 + (ids[row, place] - 2 + 1) % (V - 2)
        wanted[row, place] += 3.0
    pairs = Pairs(np.arange(n), [str(row) for row in range(n)], ["en"] * n, ids, wanted.astype(np.float16))
    return Corrections(pairs, [""] * n, hypotheses, own.astype(np.float16)).joined()


@pytest.fixture(params=FAMILIES)
def corrector(request):
    return request.param, tiny_corrector(request.param, V, DIM, LENGTH, (EOS, PAD))


def engine_of(model, **settings):
    return LocalEngine(model, build_optimizer(model, TrainingSettings(**settings)))


def draws_of(settings, batch):
    return draw(settings, batch, 2 * LENGTH, 2 * DIM, step_generator(0, 0, 0))


def test_the_loss_is_that_of_the_text_from_what_was_shown(corrector):
    family, model = corrector
    objective, settings = OBJECTIVES[f"{family}_corrector"], TrainingSettings()
    given, embedding = to_tensors(rows(16), np.arange(16), CPU)
    hypothesis, text = given.chunk(2, dim=1)
    draws = draws_of(settings, 16)
    found = objective.loss(engine_of(model), given, embedding, IDS, settings, draws)
    if family == "t5":
        shown, asked = given, counted(text, IDS)
    else:
        hidden = (draws.uniforms[:, :LENGTH] < draws.t.unsqueeze(1)) & (draws.uniforms[:, LENGTH] >= WHOLE).unsqueeze(1)
        shown, asked = hypothesis.masked_fill(hidden, V), torch.ones_like(text, dtype=torch.bool)
        whole = ~hidden.any(dim=1)
        assert 0 < whole.sum() < 16
    by_hand = -model(shown, embedding).gather(2, text.unsqueeze(2)).squeeze(2)[asked].sum() / text.numel()
    assert found.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert float(found.by_part[1].sum()) == float(asked.sum())
    assert float(found.by_part[0].sum()) == pytest.approx(float(by_hand) * text.numel(), rel=1e-4)


def test_noise_is_the_wanted_vectors_alone(corrector):
    family, model = corrector
    objective, settings = OBJECTIVES[f"{family}_corrector"], TrainingSettings(embedding_noise=0.5)
    given, embedding = to_tensors(rows(4), np.arange(4), CPU)
    seen = []

    class Engine(LocalEngine):
        def loss(self, z_t, embedding, *others):
            seen.append(embedding)
            return super().loss(z_t, embedding, *others)

    engine = Engine(model, build_optimizer(model, settings))
    objective.loss(engine, given, embedding, IDS, settings, draws_of(settings, 4))
    assert torch.equal(seen[0][:, DIM:], embedding[:, DIM:]) and not torch.equal(seen[0][:, :DIM], embedding[:, :DIM])


def test_a_mean_over_parts_is_that_of_the_whole(corrector):
    family, model = corrector
    objective, settings = OBJECTIVES[f"{family}_corrector"], TrainingSettings()
    given, embedding = to_tensors(rows(8), np.arange(8), CPU)
    draws, engine = draws_of(settings, 8), engine_of(model)
    whole = objective.loss(engine, given, embedding, IDS, settings, draws).loss
    halves = [
        objective.loss(engine, given[part], embedding[part], IDS, settings, draws.take(part)).loss
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_to_mend_what_the_difference_tells(family):
    torch.manual_seed(0)
    model = new_model(chosen(family), Vocabulary.whole(V), DIM, LENGTH, (EOS, PAD))
    settings = TrainingSettings(
        optimizer="adamw", learning_rate=0.003, max_steps=300, batch_size=32, ema_decay=0.9, validations=2, warmup=0.05
    )
    training, held_out = rows(4096), rows(64, seed=1)
    ema = EMA(model, settings.ema_decay, settings.ema_share)
    events = list(run(engine_of(model, **settings.model_dump()), ema, training, held_out, IDS, settings, RunState()))
    figures = [event.figures for event in events if isinstance(event, Validated)][-1]
    assert figures.measure == "nll" and figures.n == 64
    wrong = 64 / sum(3 + row % 4 for row in range(64))
    assert figures.hypothesis_accuracy == pytest.approx(1 - wrong)
    assert figures.as_row()["hypothesis_accuracy"] == figures.hypothesis_accuracy
    if family == "mdlm":  # a T5 from scratch has to learn to copy first, which takes longer
        assert figures.token_accuracy > figures.hypothesis_accuracy + 0.3 * wrong
    first = next(event.figures for event in events if isinstance(event, Validated))
    assert figures.nats < first.nats


def test_examples_are_corrections_of_their_hypotheses(corrector):
    family, model = corrector
    decode = OBJECTIVES[f"{family}_corrector"].decode
    held_out = rows(10)
    examples = recover_examples(
        lambda *given: decode(model, *given), held_out, lambda ids: [str(row.tolist()) for row in ids], IDS, 3, CPU
    )
    assert [example.original for example in examples] == [str(row) for row in range(8)]
    assert all(len(json.loads(example.recovered)) == LENGTH for example in examples)
