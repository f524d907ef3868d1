"""A run of the loop on the toy corpus, and an engine that remembers what it was told."""

import torch

from embinv.training.engine import LocalEngine
from embinv.training.loop import run
from embinv.training.settings import TrainingSettings


def settings(**changes):
    usual = {"max_steps": 12, "batch_size": 4, "validations": 4, "optimizer": "muon", "validation_steps": 2}
    return TrainingSettings(**(usual | changes))


class RecordingEngine(LocalEngine):
    """Notes the rates it steps at, the vectors it sees, and what it answers."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.rates, self.vectors, self.losses, self.norms = [], [], [], []
        self.entropies = []  # with the row of the batch that each belongs to

    def loss(self, z_t, embedding, positions, targets, weights):
        loss, entropies = super().loss(z_t, embedding, positions, targets, weights)
        self.vectors.append(embedding)
        self.losses.append(loss.item())
        self.entropies.append((positions.nonzero()[:, 0].tolist(), entropies.tolist()))
        return loss, entropies

    def step(self, rate):
        self.rates.append(rate)
        norm = super().step(rate)
        self.norms.append(norm)
        return norm


def events(toy, engine, ema, chosen, state):
    return run(engine, ema, toy.pairs, toy.pairs, toy.ids, chosen, state)


def finish(toy, engine, ema, chosen, state):
    return list(events(toy, engine, ema, chosen, state))


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
