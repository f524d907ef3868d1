"""An encoder without a model: a pseudo-random unit vector for each text, the same on every machine.

It is for two things: measuring everything but the encoder (with vectors that cost next to nothing, what is slow is
the reading, aligning and writing), and tests. Texts that mean the same are as far apart as any others, so nothing
can be learned about language from these vectors.

BLAKE2b gives each text a seed s of 64 bits. The finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators") turns s + (i + 1) * GAMMA into word i, and each word gives four numbers of 16 bits,
read as k in -32768..32767. The values are the odd integers 2k + 1: uniform, symmetric about 0, never 0. Their squares
are added in float64, where such sums are exact in any order (D < 2^21), so the result is the same to the last bit.

N texts, D length of a vector, W = ceil(D / 4) words.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from embinv.encoders.spec import EncoderSpec

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment
CHUNK_NUMBERS = 1 << 16  # numbers worked on at once, so that they stay in a core's cache


class HashEncoder:
    """Encodes with a hash: each vector is a function of prompt + text and of `spec.dim`, and of nothing else.

    Args:
        spec: the recipe; of it, `dim` and `prompt` count.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    def encode(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """Returns [N, D] float32 unit vectors; row i belongs to text i."""
        seeds = self._seeds(texts)
        vectors = np.empty((len(texts), self.spec.dim), dtype=np.float32)
        rows = max(1, CHUNK_NUMBERS // self.spec.dim)
        for start in range(0, len(texts), rows):
            values = random_values(seeds[start : start + rows], self.spec.dim)  # [rows, D]
            values /= np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
            vectors[start : start + rows] = values
        return vectors

    def _seeds(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """[N] uint64."""
        prompt = self.spec.prompt or ""
        blake2b = hashlib.blake2b
        digests = [blake2b((prompt + text).encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts]
        return np.frombuffer(b"".join(digests), dtype="<u8")


def random_values(seeds: np.ndarray, dim: int) -> np.ndarray:
    """Odd integers in -65535..65535, pseudo-random and uniform.

    Args:
        seeds: [N] uint64.
        dim: D.

    Returns:
        [N, D] float64; row n depends on seed n and D only, and begins as the row of any smaller D does.
    """
    words = -(-dim // 4)
    z = seeds[:, None] + np.arange(1, words + 1, dtype=np.uint64) * GAMMA  # [N, W]
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    values = z.astype("<u8", copy=False).view("<i2")[:, :dim].astype(np.float64)  # [N, D]
    values *= 2
    values += 1
    return values
