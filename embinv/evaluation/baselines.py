"""What is scored without reading the vector right: the baselines that every report stands beside.

Zero and shuffled embeddings go through the inverter; the nearest training text is retrieval alone; the unconditional
text is the one fixed answer that the training texts would give to every vector.

Shapes: N vectors, D embedding.
"""

import numpy as np

from embinv.data.pairs import Pairs
from embinv.data.tokenizer import TextTokenizer
from embinv.inversion import Inversion


def derangement(n: int, seed: int) -> np.ndarray:
    """A random cyclic shift of a random order: every row gets another row's vector, [n] int64."""
    order = np.random.default_rng(seed).permutation(n)
    target = np.empty(n, dtype=np.int64)
    target[order] = np.roll(order, 1)
    return target


def nearest_neighbours(
    vectors: np.ndarray, training: Pairs, tokenizer: TextTokenizer, block: int = 65_536
) -> list[Inversion]:
    """For each vector [N, D] the training text of highest cosine, as if it had been recovered."""
    queries = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best, where = np.full(len(queries), -np.inf, dtype=np.float32), np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(training), block):
        keys = training.embeddings[start : start + block].astype(np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        similarity = queries @ keys.T  # [N, block]
        place = similarity.argmax(axis=1)
        value = similarity[np.arange(len(queries)), place]
        better = value > best
        best[better], where[better] = value[better], place[better] + start
    ids = [tokenizer.content(row) for row in training.token_ids[where].tolist()]
    return [
        Inversion(training.texts[row], content, [], float(score))
        for row, content, score in zip(where.tolist(), ids, best.tolist(), strict=True)
    ]


def unconditional(training: Pairs, tokenizer: TextTokenizer) -> Inversion:
    """The commonest token at each place of the training texts that reach it, as long as their median; it reads nothing.

    Of all fixed texts of its length, none has more tokens right on the training texts. Of equally common tokens the
    one of the smallest id stands.
    """
    ids = training.token_ids  # [N, L]
    content = ~np.logical_or.accumulate(np.isin(ids, (tokenizer.eos_id, tokenizer.pad_id)), axis=1)
    length = int(np.quantile(content.sum(axis=1), 0.5, method="lower"))
    said = [int(np.bincount(ids[content[:, place], place]).argmax()) for place in range(length)]
    return Inversion(tokenizer.decode(said), said, [], 0.0)
