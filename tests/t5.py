"""T5 inverters of tiny sizes, and the architecture of the published one."""

import torch
from torch import nn

from embinv.models.t5_inverter import T5Inverter
from embinv.models.t5_settings import T5InverterConfig, T5Shape

DIM, LENGTH, PSEUDO, VOCABULARY = 8, 12, 3, 40
START, PAD, EOS = 0, 0, 1
TINY = T5Shape(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2)


def tiny_config(**changes):
    settings = {
        "vocab_size": VOCABULARY,
        "rows": VOCABULARY,
        "embedding_dim": DIM,
        "seq_len": LENGTH,
        "pseudo_tokens": PSEUDO,
        "dropout": 0.0,
        "start_id": START,
        "eos_id": EOS,
        "pad_id": PAD,
        "unit_rms": False,
        "tied_head": True,
        "transformer": TINY,
    }
    return T5InverterConfig(**settings | changes)


def published_config():
    """That of kennethge123/qwen3-8b-t5-inverter: T5-base behind vectors of 4,096 dimensions."""
    base = T5Shape(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12)
    return tiny_config(
        vocab_size=32_100, rows=32_128, embedding_dim=4096, seq_len=128, pseudo_tokens=16, dropout=0.1, transformer=base
    )


def tiny_inverter(config, seed=0, spread=0.2):
    """Random weights, of a size at which texts differ."""
    model = T5Inverter(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                nn.init.ones_(parameter)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model
