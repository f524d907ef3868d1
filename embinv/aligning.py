"""Vectors of an unknown encoder through an inverter of another one, by a map that is fitted on few known pairs.

Who knows the texts of some vectors, such as those that he put into the store himself, encodes these texts with the
inverter's own encoder, learns a linear map from the one space to the other and inverts the rest through it: ALGEN
(Chen, Xu and Bjerva, "ALGEN: Few-shot Inversion Attacks on Textual Embeddings using Alignment and Generation", 2025);
Morris et al. 2023 for what is inverted.

How much leaks is measured by the number of known pairs, on pairs held out from every fit and every choice, between
references: the encoder's own vectors, which a map can come near to, and below them the mean of the known ones, which a
map that has learned nothing gives, and those of other texts. Held-out texts that a known one nearly is are not measured
on (see `embinv.data.held_out`). What this does not do: read files, write reports, or train the inverter on vectors that
went through the map.

Shapes: N rows, k known pairs, D dimensions of the unknown space, E of the encoder's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embinv.data.corpus import identity_keys
from embinv.data.held_out import remove_known
from embinv.data.pairs import Pairs
from embinv.data.tokenizer import TextTokenizer
from embinv.encoders.base import Encoder
from embinv.evaluation.baselines import derangement
from embinv.inversion import Inversion
from embinv.inverter import TextInverter
from embinv.metrics.figures import Figure, mean_figure
from embinv.metrics.text import sentence_bleu
from embinv.metrics.tokens import exact_match, token_f1
from embinv.spaces.choosing import FEWEST, Chosen, choose_map, row_cosines
from embinv.spaces.linear import LinearMap

COUNTS = (50, 100, 200, 500, 1000, 2000, 5000)
"""Known pairs at which the leakage is measured, beside all that there are."""

HELD_OUT = 500  # at most, unless told otherwise, and a fifth of the pairs
ENCODED_AT_ONCE = 256  # texts between two lines of progress

Tell = Callable[[str], None]


@dataclass(frozen=True)
class KnownPairs:
    """Texts with their vectors in two spaces, none of them twice.

    Attributes:
        texts: N of them.
        unknown: [N, D] float32, their vectors in the unknown space.
        own: [N, E] float32, those of the inverter's encoder.
        dropped: rows that were left out, by reason.
    """

    texts: list[str]
    unknown: np.ndarray
    own: np.ndarray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "KnownPairs":
        """The given rows, in the given order."""
        return KnownPairs([self.texts[i] for i in rows], self.unknown[rows], self.own[rows], self.dropped)


@dataclass(frozen=True)
class Leakage:
    """What was recovered of the held-out texts in one way.

    Attributes:
        figures: token_f1, exact_match, bleu; and cosine, between the vectors that were inverted and the encoder's own.
        inversions: of the held-out texts, in their order.
        chosen: the map with its cross-validation; None for a reference.
        known: pairs that the map was fitted on; None for a reference.
    """

    figures: dict[str, Figure]
    inversions: list[Inversion]
    chosen: Chosen | None = None
    known: int | None = None


@dataclass(frozen=True)
class Alignment:
    """The leakage of a space by known pairs.

    Attributes:
        held_out: the pairs that were measured on.
        copies: those that were not, since a known text is the same or nearly the same.
        beyond: those measured on whose text is longer than the inverter can write.
        by_known: one for each number of known pairs, ascending.
        references: `own` (the encoder's own vectors), `other` (those of other texts), `mean` (that of the known
            ones) and, where the dimensions agree, `unmapped` (the unknown space's, as they are).
    """

    held_out: KnownPairs
    copies: int
    beyond: int
    by_known: list[Leakage]
    references: dict[str, Leakage]


def known_pairs(
    texts: Sequence[str | None],
    vectors: np.ndarray,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    on_progress: Tell = lambda line: None,
) -> KnownPairs:
    """Encodes known texts, so that each has a vector in both spaces.

    Left out are texts without a token, vectors that are zero or not finite, and texts that stand in an earlier row too
    (up to case and whitespace), since a text that is held out must not be among the known.

    Args:
        texts: N of them; None where a row has none.
        vectors: [N, D] their vectors in the unknown space.
        encoder: the one that the inverter inverts.
        tokenizer: the inverter's.
        on_progress: gets a line after each block of texts.

    Raises:
        ValueError: there are not as many texts as vectors, or the encoder gives a text no vector.
    """
    if vectors.ndim != 2 or len(texts) != len(vectors):
        raise ValueError(f"{len(texts)} texts and vectors {list(vectors.shape)}; give one vector [D] for each text")
    filled = [text if text is not None and text.strip() else "" for text in texts]
    has_tokens = np.fromiter(map(bool, tokenizer.encode(filled)), np.bool_, len(filled))
    sound = _sound(vectors)
    first: dict[bytes, int] = {}
    for row, key in enumerate(identity_keys(pa.array(filled, pa.string()))):
        if has_tokens[row] and sound[row]:
            first.setdefault(key, row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    kept = [filled[row] for row in rows]
    blocks = []
    for start in range(0, len(kept), ENCODED_AT_ONCE):
        blocks.append(encoder.encode(kept[start : start + ENCODED_AT_ONCE]))
        on_progress(f"encoded {min(start + ENCODED_AT_ONCE, len(kept)):,} of {len(kept):,} known texts")
    own = np.concatenate(blocks) if blocks else np.empty((0, encoder.spec.dim), np.float32)
    if not _sound(own).all():
        text = kept[int(np.argmin(_sound(own)))]
        raise ValueError(f"the encoder gives this text no vector; leave it out: {text[:80]!r}")
    dropped = {
        "without text": int((~has_tokens).sum()),
        "vector zero or not finite": int((has_tokens & ~sound).sum()),
        "text of an earlier row": int((has_tokens & sound).sum()) - len(kept),
    }
    return KnownPairs(kept, vectors[rows].astype(np.float32), own, dropped)


def measure_alignment(
    inverter: TextInverter,
    pairs: KnownPairs,
    counts: Sequence[int] | None = None,
    held_out: int | None = None,
    steps: int = 8,
    seed: int = 0,
    on_progress: Tell = lambda line: None,
) -> Alignment:
    """Measures what is recovered through a map, by the number of known pairs it is fitted on.

    The pairs are shuffled by the seed, the first are held out, and each number of known pairs takes as many from the
    others, so that a larger number contains the smaller. Of those held out, texts that one of the others nearly is are
    left out, whatever the number, so that every number is measured on the same texts.

    Args:
        inverter: of the encoder that made `pairs.own`.
        pairs: at least 12.
        counts: k of them; None takes COUNTS as far as there are pairs, and all that there are.
        held_out: pairs to measure on; None takes HELD_OUT, or a fifth of the pairs if that is less.
        steps: denoising passes.
        seed: of the shuffle, the folds and decoders that sample.
        on_progress: gets a line as the work goes on.

    Raises:
        ValueError: there are too few pairs for that, or too few that are no near copies; the message says how many
            there are.
    """
    held = min(HELD_OUT, len(pairs) // 5) if held_out is None else held_out
    rest = len(pairs) - held
    if held < 2 or rest < FEWEST:
        raise ValueError(
            f"--held-out: {held} of {len(pairs)} usable pairs are held out and {rest} are left to learn from; at "
            f"least 2 and {FEWEST} are needed; give more --known pairs, or hold out others"
        )
    wanted = sorted({*(k for k in COUNTS if k < rest), rest} if counts is None else set(counts))
    if not wanted or wanted[0] < FEWEST or wanted[-1] > rest:
        raise ValueError(
            f"--known-pairs {','.join(map(str, wanted))}: give numbers from {FEWEST} to {rest}, for that many of the "
            f"{len(pairs)} usable pairs are not held out"
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    known = pairs.take(order[held:])
    test = _unlike(pairs.take(order[:held]), known)
    if len(test) < 2:
        raise ValueError(
            f"--held-out: of {held} pairs that are held out, {held - len(test)} have texts that are nearly those of "
            "others; hold out more, or give more --known pairs, of texts that differ"
        )
    references = measure_references(inverter, known, test, steps, seed, on_progress)
    by_known = measure_maps(inverter, known, test, wanted, steps, seed, on_progress)
    longest = inverter.config.pairs.seq_len - 1
    beyond = sum(len(ids) > longest for ids in inverter.tokenizer.encode(test.texts))
    return Alignment(test, held - len(test), beyond, by_known, references)


def measure_maps(
    inverter: TextInverter,
    known: KnownPairs,
    test: KnownPairs,
    counts: Sequence[int],
    steps: int = 8,
    seed: int = 0,
    on_progress: Tell = lambda line: None,
) -> list[Leakage]:
    """What is recovered of `test` through maps that are fitted on the first k of `known`, for each k of `counts`.

    Raises:
        ValueError: a number of `counts` is not from FEWEST to len(known), or nothing can be fitted.
    """
    found = []
    for k in counts:
        if not FEWEST <= k <= len(known):
            raise ValueError(f"{k} known pairs: give numbers from {FEWEST} to {len(known)}")
        on_progress(f"measuring with {k:,} known pairs")
        chosen = choose_map(known.unknown[:k], known.own[:k], seed)
        found.append(leakage_of(inverter, test, chosen.map(test.unknown), steps, seed, chosen, k))
    return found


def measure_references(
    inverter: TextInverter,
    known: KnownPairs,
    test: KnownPairs,
    steps: int = 8,
    seed: int = 0,
    on_progress: Tell = lambda line: None,
) -> dict[str, Leakage]:
    """What is recovered of `test` without a map: see `Alignment.references`."""
    vectors = {
        "own": test.own,
        "other": test.own[derangement(len(test), seed)],
        "mean": np.tile(known.own.mean(axis=0), (len(test), 1)),
    }
    if test.unknown.shape[1] == test.own.shape[1]:
        vectors["unmapped"] = test.unknown
    found = {}
    for name, each in vectors.items():
        on_progress(f"measuring reference {name}")
        found[name] = leakage_of(inverter, test, each, steps, seed)
    return found


def leakage_of(
    inverter: TextInverter,
    test: KnownPairs,
    vectors: np.ndarray,
    steps: int = 8,
    seed: int = 0,
    chosen: Chosen | None = None,
    known: int | None = None,
) -> Leakage:
    """Inverts vectors [N, E] in the place of the test pairs' own, and scores the texts.

    Args:
        inverter: that takes them.
        test: N held-out pairs.
        vectors: [N, E] float32.
        steps: denoising passes.
        seed: for decoders that sample.
        chosen: the map that they came through.
        known: pairs that it was fitted on.
    """
    inversions = inverter.invert(vectors, steps=steps, seed=seed)
    originals, ids = inverter.tokenizer.encode(test.texts), [inversion.token_ids for inversion in inversions]
    figures = {
        "token_f1": token_f1(originals, ids),
        "exact_match": exact_match(originals, ids),
        "bleu": sentence_bleu(test.texts, [inversion.text for inversion in inversions]),
        "cosine": mean_figure(row_cosines(vectors, test.own).tolist()),
    }
    return Leakage(figures, inversions, chosen, known)


def invert_through(
    inverter: TextInverter, linear: LinearMap, vectors: np.ndarray, steps: int = 8, seed: int = 0
) -> list[Inversion | None]:
    """Inverts vectors of the unknown space.

    Args:
        inverter: of the space that the map leads to.
        linear: see `choose_map`.
        vectors: [N, D] float32.
        steps: denoising passes.
        seed: for decoders that sample.

    Returns:
        [N], None where a vector is zero or not finite. Their probabilities are left out: they were calibrated on the
        encoder's own vectors.

    Raises:
        ValueError: the vectors have another dimension than the map.
    """
    sound = np.flatnonzero(_sound(vectors))
    found: list[Inversion | None] = [None] * len(vectors)
    mapped = linear(vectors[sound])  # [M, E]
    usable = np.flatnonzero(_sound(mapped))
    if len(usable):
        inversions = inverter.invert(mapped[usable], steps=steps, seed=seed)
        for row, inversion in zip(sound[usable].tolist(), inversions, strict=True):
            found[row] = Inversion(
                inversion.text, inversion.token_ids, inversion.token_confidence, inversion.confidence
            )
    return found


def _unlike(test: KnownPairs, known: KnownPairs) -> KnownPairs:
    """The test pairs whose texts are not those of known pairs, nor nearly."""
    return test.take(remove_known(_texts_alone(test), _texts_alone(known)).pairs.ids)


def _texts_alone(pairs: KnownPairs) -> Pairs:
    count = len(pairs)
    return Pairs(
        np.arange(count), pairs.texts, [""] * count, np.empty((count, 0), np.int32), np.empty((count, 0), np.float16)
    )


def _sound(vectors: np.ndarray) -> np.ndarray:
    """[N] bool: the rows that have a direction."""
    return np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
