"""Correctors of tiny sizes, with random weights of a size at which what they say depends on all that they read."""

import torch
from torch import nn

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.vocabulary import Vocabulary
from embinv.models.mdlm_corrector import CorrectingMDLM
from embinv.models.settings import ModelSettings
from embinv.models.t5_corrector import T5Corrector
from embinv.models.t5_settings import T5CorrectorConfig, complete
from tests.fakes import awaken, recipe_for
from tests.t5 import tiny_config

FAMILIES = ("mdlm", "t5")


def settings(family, **changes):
    return ModelSettings(family=family, size="tiny", corrector=True, pseudo_tokens=2, **changes)


def tiny_corrector(family, vocab_size, dim, seq_len, ends, seed=0, spread=0.3):
    """A corrector of a family; `ends` are the ids of EOS and PAD."""
    torch.manual_seed(seed)
    if family == "mdlm":
        return awaken(CorrectingMDLM(settings("mdlm").resolve(vocab_size, dim, seq_len)), seed).eval()
    return scattered(T5Corrector(complete(settings("t5"), vocab_size, dim, seq_len, ends)), seed, spread)


def narrow_t5_corrector(seed=0, spread=0.3, **changes):
    """A T5 corrector of the sizes in tests/t5.py."""
    config = T5CorrectorConfig(**tiny_config(**changes).model_dump())
    return scattered(T5Corrector(config), seed, spread)


def scattered(model, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.ones_(parameter)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


def corrector_checkpoint(folder, family, tokenizer, encoder, seq_len, kept=None):
    """Writes a whole checkpoint folder of a corrector."""
    vocabulary = Vocabulary.whole(tokenizer.vocab_size)
    if kept is not None:
        vocabulary = Vocabulary(kept, tokenizer.vocab_size, tokenizer.unknown_id)
    ends = vocabulary.ends(tokenizer.eos_id, tokenizer.pad_id)
    model = tiny_corrector(family, vocabulary.size, encoder.dim, seq_len, ends)
    config = CheckpointConfig(
        name="tiny",
        model=model.config,
        pairs=recipe_for(tokenizer, encoder, seq_len),
        training={"steps": 0},
    )
    save_checkpoint(folder, model, config, tokenizer, vocabulary)
    return model
