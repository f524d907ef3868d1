"""Tiny random ModernBERTs, saved as a pretrained one is: config, safetensors, tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast

from embinv.models.settings import TransformerShape
from tests.fakes import WORDS

SPECIAL = ("[PAD]", "[SEP]", "[UNK]", "[MASK]", "[CLS]")
MASK = SPECIAL.index("[MASK]")
TOKENS = len(SPECIAL) + len(WORDS)


def tiny_config(**changes):
    """Four layers, of which two are local with a window of 8 to each side."""
    given = {
        "vocab_size": TOKENS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "local_attention": 16,
        "initializer_range": 0.3,  # large enough for tokens and positions to matter
        "pad_token_id": 0,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 160_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1_000.0},
        },
    }
    return ModernBertConfig(**given | changes)


def tiny_shape(**changes):
    """What a checkpoint keeps of such a config."""
    config = tiny_config(**changes)
    return TransformerShape.model_validate({name: getattr(config, name) for name in TransformerShape.model_fields})


def save_tiny_backbone(folder, mask_token="[MASK]", **changes):
    """Writes a backbone into `folder` and returns its language model, in evaluation mode."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    marks = {"pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": mask_token}
    Path(folder).mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=backend, **marks).save_pretrained(str(folder))
    torch.manual_seed(0)
    model = ModernBertForMaskedLM(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, so that one left out is seen
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    return model
