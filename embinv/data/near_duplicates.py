"""Near-duplicates: texts whose character n-grams are almost the same set, found by MinHash and banding.

Broder (1997) for the signature: the share of equal places in two signatures estimates the Jaccard similarity of two
sets. Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4, for the banding: a signature is cut
into bands of r rows, and two texts are a candidate pair when a whole band agrees, which for similarity s happens in at
least one of b bands with probability 1 - (1 - s^r)^b, the S-curve. The signatures themselves come from rensa, a Rust
library (its R-MinHash follows Dahlgaard et al. 2017, "Fast Similarity Sketching"): on short texts it is both faster
and less noisy than one hash function for each place.

The steps are apart so that each can run where its data lie. Per block of texts, anywhere and in any order:

    signed = signatures(texts, num_perm, seed)      # [n, P] uint32, stays with the block
    keys = band_keys(signed, bands, rows)           # [n, b] uint64, travels: 288 MB for 2 M texts at b = 18

In one place, on the keys of all N texts and then on the signatures of the candidates only:

    pairs = candidate_pairs(keys, priority)         # [M, 2]
    candidates = np.unique(pairs)                   # rows whose signatures are to be fetched, 4P bytes each
    groups = near_duplicate_groups(pairs, candidates, signed[candidates], threshold, N)
    keep = keep_first(groups, priority)             # [N]

Which texts stay depends on the texts, the seed and the priorities alone, not on the order of the rows or on how they
lay in blocks. What it does not do: it knows no words, no meaning and no language, and it does not find exact copies
first; those have one id and are dropped by `corpus`.

Legend: N texts, P places of a signature, b bands, r rows of a band, M candidate pairs, C candidates.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rensa import RMinHash  # type: ignore[attr-defined]  # compiled, without stubs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embinv.data.corpus import seeded_key

# Characters in an n-gram. With 2, unrelated short texts look alike (20 times the candidates of 3); with 5, one changed
# character puts a sentence in Chinese, Arabic or Korean below 0.8 in two cases of three.
SHINGLE = 3
RECALL = 0.95  # probability that a pair exactly at the threshold becomes a candidate, at least

_BLOCK = 2048  # texts signed at once: rensa answers with Python numbers, 36 bytes each
_NO_LETTERS = pc.ReplaceSubstringOptions(r"[^\pL\pM\pN]+", "")
_PAIRS_AT_ONCE = 65_536  # 2 x 32 MB of signatures at P = 128
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio


def shingle_hashes(texts: Sequence[str], size: int = SHINGLE) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The character n-grams of each text, as 64-bit hashes.

    A text is brought to NFKC, casefolded and stripped of all but letters, marks and digits, so that case, width,
    punctuation and spacing do not count, and no word boundary is needed (Chinese, Japanese, Thai). A text with fewer
    than `size` such characters (a row of emoji) has one n-gram, the text as it stands, and is like nothing but itself.

    Args:
        texts: N texts without lone surrogates (`corpus.normalise` leaves none).
        size: Characters in an n-gram.

    Returns:
        hashes of all n-grams, text after text, and [N + 1] offsets: text i has hashes[offsets[i]:offsets[i + 1]].
    """
    folded = pa.array([unicodedata.normalize("NFKC", text).casefold() for text in texts], pa.string())
    letters = pc.call_function("replace_substring_regex", [folded], _NO_LETTERS)
    lengths = pc.call_function("utf8_length", [letters]).to_numpy().astype(np.int64)  # [N]
    points = np.frombuffer("".join(letters.to_pylist()).encode("utf-32-le"), "<u4")
    points = np.append(points, np.zeros(size, np.uint32)).astype(np.uint64)  # so that every text has a first n-gram
    rolled = np.zeros(len(points) - size + 1, np.uint64)
    for place in range(size):  # of every n-gram of the whole block at once, those across two texts included
        rolled = (rolled ^ points[place : place + len(rolled)]) * _MIX
        rolled ^= rolled >> np.uint64(32)

    counts = np.maximum(lengths - size + 1, 1)  # [N]
    offsets = np.concatenate([[0], np.cumsum(counts)])  # [N + 1]
    starts = np.cumsum(lengths) - lengths  # [N]: where each text begins in `points`
    hashes = rolled[np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])]
    for row in np.flatnonzero(lengths < size).tolist():
        digest = hashlib.blake2b(texts[row].encode(), digest_size=8, person=b"embinv-shingle").digest()
        hashes[offsets[row]] = int.from_bytes(digest, "big")
    return hashes, offsets.astype(np.uint64)


def signatures(texts: Sequence[str], num_perm: int, seed: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures, the same for a text in any block, process and machine.

    Args:
        texts: N texts without lone surrogates.
        num_perm: P, places of a signature; the estimate's standard error is at most sqrt(s (1 - s) / P).
        seed: Another seed, other signatures; only those of one seed can be compared.

    Returns:
        [N, P] signatures.

    Raises:
        ValueError: `num_perm` is not positive.
    """
    if num_perm < 1:
        raise ValueError(f"num_perm must be at least 1, got {num_perm}; 128 is usual.")
    signed = np.empty((len(texts), num_perm), np.uint32)
    for start in range(0, len(texts), _BLOCK):
        hashes, offsets = shingle_hashes(texts[start : start + _BLOCK])
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm, seed)
        numbers = np.fromiter(chain.from_iterable(matrix.to_rows()), np.uint32)
        signed[start : start + _BLOCK] = numbers.reshape(-1, num_perm)
    return signed


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The S-curve: how likely two texts of this Jaccard similarity agree in a whole band, 1 - (1 - s^r)^b."""
    return 1 - (1 - similarity**rows) ** bands


def choose_bands(threshold: float, num_perm: int, recall: float = RECALL) -> tuple[int, int]:
    """Bands and rows for a threshold: the steepest S-curve that does not lose the pairs just at it.

    More rows in a band mean fewer false candidates, which only cost time since all are verified, and more lost pairs,
    which nothing brings back. So: the most rows for which as many bands as fit still find a pair at the threshold
    with probability `recall`.

    Args:
        threshold: Jaccard similarity from which two texts are near-duplicates, in (0, 1).
        num_perm: P, places of a signature.
        recall: Probability with which a pair exactly at the threshold is to be found, in (0, 1).

    Returns:
        b and r, with b * r <= P.

    Raises:
        ValueError: A number is out of its range, or P is too small to find such pairs.
    """
    if not (0 < threshold < 1 and 0 < recall < 1):
        raise ValueError(f"The threshold and the recall must lie between 0 and 1, got {threshold=} and {recall=}.")
    for rows in range(num_perm, 0, -1):
        bands = num_perm // rows
        if candidate_probability(threshold, bands, rows) >= recall:
            return bands, rows
    raise ValueError(f"Signatures of {num_perm} places find too few pairs of similarity {threshold}; take more places.")


def band_keys(signed: npt.NDArray[np.uint32], bands: int, rows: int) -> npt.NDArray[np.uint64]:
    """One 64-bit hash of each band of each signature.

    Args:
        signed: [N, P] signatures.
        bands: b.
        rows: r, with b * r <= P; what is left over is not used.

    Returns:
        [N, b] keys.
    """
    assert bands * rows <= signed.shape[1]
    cut = signed[:, : bands * rows].reshape(len(signed), bands, rows)  # [N, b, r]
    keys = np.zeros(cut.shape[:2], np.uint64)  # [N, b]
    for row in range(rows):
        keys = (keys ^ cut[:, :, row]) * _MIX
        keys ^= keys >> np.uint64(32)
    return keys


def priorities(ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """[N] the order in which the texts of a group may stay, smallest first: a seeded hash of the text id.

    It is another one than that of `corpus.select_rows`: with the same, a text that won its group would have a small
    key there too, and texts with many copies would crowd out the others.
    """
    return seeded_key(ids, seed, b"embinv-near-dup")


def candidate_pairs(keys: npt.NDArray[np.uint64], priority: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Pairs of texts that share a band, each with the first of its bucket.

    A bucket of k texts gives k - 1 pairs and not k (k - 1) / 2, so ten thousand texts with one key cost ten thousand
    pairs. The price: two alike texts go unseen where in every band that they share the bucket's first is like neither.
    Bands of several rows make that rare (the bucket's texts mostly are alike), and each band is another chance.

    Args:
        keys: [N, b] band keys.
        priority: [N] of each text, distinct; the smallest of a bucket is its first.

    Returns:
        [M, 2] row numbers, the smaller first, each pair once, ascending.
    """
    count = len(keys)
    found = [np.zeros(0, np.int64)]  # [b] pairs of a band as smaller * N + larger: no more numbers than `keys` has
    by_priority = np.argsort(priority, kind="stable")
    for band in keys.T:
        order = by_priority[np.argsort(band[by_priority], kind="stable")]  # by key, then by priority
        ordered = band[order]
        opens = np.append(True, ordered[1:] != ordered[:-1])[:count]  # [N]: begins a bucket
        first = order[np.maximum.accumulate(np.where(opens, np.arange(count), 0))]  # [N]: the first of its bucket
        one, other = order[~opens], first[~opens]
        found.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(count, 1)), axis=1)


def near_duplicate_groups(
    pairs: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    signed: npt.NDArray[np.uint32],
    threshold: float,
    count: int,
) -> npt.NDArray[np.int64]:
    """Joins the pairs whose estimated similarity reaches the threshold.

    Groups are connected components: two texts of a group may be less alike than the threshold where others stand
    between them.

    Args:
        pairs: [M, 2] row numbers.
        candidates: [C] ascending row numbers, all that occur in `pairs`.
        signed: [C, P] their signatures.
        threshold: Share of equal places from which a pair counts.
        count: N.

    Returns:
        [N] number of each text's group; a text like no other is alone in its own.

    Raises:
        ValueError: `candidates` and `signed` differ in length.
    """
    if len(candidates) != len(signed):
        raise ValueError(
            f"Each candidate needs its signature; got {len(candidates)} candidates, {len(signed)} of them."
        )
    alike = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        places = np.searchsorted(candidates, pairs[start : start + _PAIRS_AT_ONCE])  # [m, 2]
        equal = signed[places[:, 0]] == signed[places[:, 1]]  # [m, P]
        alike[start : start + _PAIRS_AT_ONCE] = equal.mean(axis=1) >= threshold
    one, other = pairs[alike].T
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def keep_first(groups: npt.NDArray[np.int64], priority: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which texts stay: of each group the one with the smallest priority.

    Args:
        groups: [N] number of each text's group.
        priority: [N] of each text, distinct.

    Returns:
        [N] mask with one True for each group.
    """
    keep = np.zeros(len(groups), np.bool_)
    order = np.lexsort((priority, groups))
    _, first = np.unique(groups[order], return_index=True)
    keep[order[first]] = True
    return keep
