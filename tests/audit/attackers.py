"""A tiny checkpoint with texts of a store and of an attacker, and an inverter that knows the store by heart.

Shapes: D 16, L 8.
"""

from dataclasses import dataclass, replace

import torch

from embinv.checkpoint import Checkpoint, load_checkpoint
from embinv.data.pairs import Pairs
from embinv.encoders.hashing import HashEncoder
from embinv.inverter import DiffusionInverter
from tests.fakes import OracleDenoiser, OracleModel, hash_spec, pairs_of, sentences, tiny_checkpoint, word_tokenizer

DIM = 16
SPEC = hash_spec(DIM)


@dataclass(frozen=True)
class World:
    """Texts of the attacker and of the store; their vectors are hashes."""

    checkpoint: Checkpoint
    known: Pairs
    held_out: Pairs

    def oracle(self):
        """Reads from each vector the held-out text whose own vector is nearest."""
        x_0 = torch.from_numpy(self.checkpoint.vocabulary.compact(self.held_out.token_ids)).long()
        vectors = torch.from_numpy(self.held_out.embeddings).float()
        denoiser = OracleDenoiser(vectors, x_0, self.checkpoint.vocabulary.size)
        return DiffusionInverter(replace(self.checkpoint, model=OracleModel(denoiser)))


def make_world(folder, known=300, held_out=60):
    tokenizer = word_tokenizer(folder / "words")
    pairs = pairs_of(sentences(known + held_out), tokenizer, HashEncoder(SPEC))
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    order = torch.arange(len(pairs)).numpy()
    return World(load_checkpoint(folder / "checkpoint"), pairs.take(order[:known]), pairs.take(order[known:]))
