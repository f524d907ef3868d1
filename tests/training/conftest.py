"""A toy corpus that a tiny model can learn by heart: random sentences and their hash vectors."""

from dataclasses import dataclass

import pytest
import torch

from embinv.data.pairs import Pairs
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.hashing import HashEncoder
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.optimizer import build_optimizer
from embinv.training.step import TokenIds
from tests.fakes import hash_spec, pairs_of, sentences, word_tokenizer

DIM, LENGTH = 16, 8


@dataclass(frozen=True)
class Toy:
    """The corpus, and a fresh engine with its EMA on demand."""

    tokenizer: TextTokenizer
    pairs: Pairs

    @property
    def ids(self):
        tokenizer = self.tokenizer
        return TokenIds(mask_id=tokenizer.vocab_size, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)

    def start(self, settings, engine=LocalEngine, seed=0, **switches):
        torch.manual_seed(seed)
        architecture = ModelSettings(size="tiny", pseudo_tokens=2, **switches)
        model = ConditionalMDLM(architecture.resolve(self.tokenizer.vocab_size, DIM, LENGTH))
        ema = EMA(model, settings.ema_decay, settings.ema_share)
        optimizer = build_optimizer(model, settings)
        return engine(model, optimizer, settings.gradient_accumulation, settings.gradient_clipping), ema


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    return Toy(tokenizer, pairs_of(sentences(20), tokenizer, HashEncoder(hash_spec(DIM)), LENGTH))
