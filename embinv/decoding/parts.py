"""Asking a denoiser about a batch in parts: what a part needs fits into memory, and on a CPU into its cache.

Log-probabilities over 262,000 tokens are 134 MB for one text of 128. A text's answer does not depend on its batch, so
the parts say together what the whole batch would.

Shapes: B batch, L length, D embedding, V vocabulary, M asked positions of a part.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, Denoiser

LOGITS_AT_ONCE = 2**26  # 256 MB of float32
CACHED_TOKENS = 2**9  # whose activations stay in a CPU's cache and in memory that it has (docs/LOG.md)


def in_parts(
    denoiser: Denoiser,
    z_t: Tensor,
    embedding: Tensor,
    positions: Tensor,
    vocab_size: int,
    other_id: int | None = None,
    tokens_at_once: int | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Yields the rows of each part and the log-probabilities [M, V] at their asked positions, in order.

    A part is as many texts as LOGITS_AT_ONCE and `tokens_at_once` allow, and one at least.

    Args:
        denoiser: is called once a part.
        z_t: [B, L] int64.
        embedding: [B, D].
        positions: [B, L] bool, where to predict.
        vocab_size: V.
        other_id: an id that is never to be chosen; its log-probability becomes -inf.
        tokens_at_once: tokens of z_t in a part, asked for or not; null is no bound.
    """
    counts = positions.sum(dim=1).tolist()  # B numbers
    most = len(counts) if tokens_at_once is None else tokens_at_once // z_t.shape[1]
    start = 0
    while start < len(counts):
        end, asked = start + 1, counts[start]
        while end < min(len(counts), start + most) and (asked + counts[end]) * vocab_size <= LOGITS_AT_ONCE:
            end, asked = end + 1, asked + counts[end]
        rows = slice(start, end)
        log_probability = denoiser(z_t[rows], embedding[rows], positions[rows])  # [M, V]
        if other_id is not None:
            log_probability[:, other_id] = -torch.inf
        yield rows, log_probability
        start = end


def ask(
    denoiser: Denoiser, request: DecodingRequest, tokens: Tensor, positions: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields row numbers [R] and log-probabilities [M, V] of each part; rows where nothing is asked are left out.

    Args:
        denoiser: is called once a part, and not at all where nothing is asked.
        request: the embeddings, and the id that is never to be chosen.
        tokens: [B, L] int64.
        positions: [B, L] bool, where to predict.
    """
    rows = positions.any(dim=1).nonzero().flatten()  # [R]
    embedding = request.embedding
    if len(rows) < len(tokens):
        tokens, embedding, positions = tokens[rows], embedding[rows], positions[rows]
    tokens_at_once = CACHED_TOKENS if tokens.device.type == "cpu" else None
    found = in_parts(denoiser, tokens, embedding, positions, request.mask_id, request.other_id, tokens_at_once)
    for part, log_probability in found:
        yield rows[part], log_probability
