"""Randomness that belongs to a vector: what is drawn for it depends on the seed and on itself, not on its batch.

Shapes: B batch, L length, D embedding, V vocabulary, M asked positions.
"""

import hashlib

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest


class RowDraws:
    """A stream of random numbers for each row of a batch.

    Args:
        request: its vectors, as float32, its seed and its streams; equal ones draw equal numbers.
    """

    def __init__(self, request: DecodingRequest) -> None:
        self.device = request.embedding.device
        rows = request.embedding.detach().float().cpu().contiguous().numpy()  # [B, D]
        streams = request.streams or (0,) * len(rows)
        self.generators = [
            torch.Generator(self.device).manual_seed(_key(row.tobytes(), request.seed, stream))
            for row, stream in zip(rows, streams, strict=True)
        ]

    def uniform(self, length: int) -> Tensor:
        """[B, length] float64 in [0, 1): `length` numbers of every row."""
        draws = [
            torch.rand(length, generator=generator, device=self.device, dtype=torch.float64)
            for generator in self.generators
        ]
        return torch.stack(draws)

    def gumbel(self, rows: Tensor, counts: Tensor, vocab_size: int) -> Tensor:
        """Standard Gumbel noise [M, V] float64: counts[i] lines from the stream of row rows[i], in order.

        In float32 the noise has a largest value, and samples come out colder than asked for (Zheng et al. 2024,
        arXiv 2409.02908, section 4).
        """
        noise = torch.empty((int(counts.sum()), vocab_size), dtype=torch.float64, device=self.device)
        start = 0
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            noise[start : start + count].exponential_(generator=self.generators[row])
            start += count
        return noise.log_().neg_()


def _key(row: bytes, seed: int, stream: int) -> int:
    digest = hashlib.blake2b(row, digest_size=8, salt=stream.to_bytes(8, "little"), person=_sixteen(seed))
    return int.from_bytes(digest.digest(), "little") >> 1  # every device takes 63 bits


def _sixteen(seed: int) -> bytes:
    return (seed % 2**128).to_bytes(16, "little")


def sample(log_probability: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draws one id for each line by the Gumbel-max trick.

    Args:
        log_probability: [M, V], -inf where an id is barred.
        noise: [M, V] float64 standard Gumbel.
        temperature: above 0.
        top_p: mass of the likeliest ids that may be drawn, after the temperature (Holtzman et al. 2020).

    Returns:
        [M] int64.
    """
    scores = log_probability.to(torch.float64, copy=True).div_(temperature)
    if top_p < 1.0:
        scores.masked_fill_(~_nucleus(scores.log_softmax(dim=-1), top_p), -torch.inf)
    return scores.add_(noise).argmax(dim=-1)


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """True at the fewest likeliest ids whose mass reaches top_p: [M, V] of log-probabilities [M, V]."""
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()  # mass of the likelier ones
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, before < top_p)
