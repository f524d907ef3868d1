"""Refinement by re-encoding: correct, embed, correct ... until the text's own vector is the wanted one.

The second stage of Morris et al., 2023, "Text Embeddings Reveal (Almost) As Much As Text", section 4, with its beam
over whole texts. Of each vector the b closest texts are held. A step has a corrector write b proposals for each, embeds
these, and holds the b best of old and new together. Since the old ones stay in, the best cosine never falls, and the
best ever seen is what comes back; the paper's own code returns the last.

A text is corrected once and embedded once for a vector. Nothing is lost by it where a corrector gives the same
proposals when asked again: one that is not held is worse than b others, and those only get better. No model here: who
writes the first hypotheses, who corrects and who encodes them is the caller's choice.

Shapes: N vectors, M hypotheses to correct, K texts in one call of the encoder, D embedding, b width of the beam.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from embinv.data.vectors import check_embeddings
from embinv.encoders.base import Encoder

# Under all-MiniLM-L6-v2 rounding a vector to bfloat16 costs 2e-6, and two neighbouring words of 80 that change places
# cost 2.6e-5 at the least of 150 such texts.
CLOSE_ENOUGH = 1 - 1e-5

Stop = Literal["close_enough", "converged", "encoder_calls", "steps"]


class Hypothesis(Protocol):
    """Anything that has a text; it comes back as it was given."""

    @property
    def text(self) -> str: ...


H = TypeVar("H", bound=Hypothesis)
H_co = TypeVar("H_co", bound=Hypothesis, covariant=True)


class Corrector(Protocol[H_co]):
    """Sees texts and how far their vectors are from the wanted ones, and writes better texts."""

    def propose(self, targets: np.ndarray, texts: list[str], own: np.ndarray, count: int) -> Sequence[Sequence[H_co]]:
        """Proposals for each of M hypotheses; M is up to N x b, and batches are the corrector's matter.

        Args:
            targets: [M, D] float32 vectors that are wanted, at the scale at which they were given.
            texts: M hypotheses; one may be empty.
            own: [M, D] float32, the encoder's vectors of these texts, as the encoder gives them.
            count: proposals wanted of each.

        Returns:
            M times `count` of them, best first. They may repeat each other or the hypothesis.
        """
        ...


@dataclass(frozen=True)
class Refined(Generic[H]):
    """What came of one vector, or has come so far.

    Attributes:
        hypothesis: the closest seen, the very object that was given or proposed.
        cosine: between the vector and its text's own; -inf if the encoder gave zero vectors only.
        encoder_calls: distinct texts embedded for this vector, first hypotheses included. One that two vectors need in
            the same step is sent once and counts for both, so that neither depends on the other.
        steps: steps that were made.
        stopped: why no more: `close_enough`; `converged`, the last step brought no new text among the b held;
            `encoder_calls` or `steps`, all that were allowed; None while it goes on.
        cosines: best cosine before the first step and after each, [steps + 1]; none is below the one before.
    """

    hypothesis: H
    cosine: float
    encoder_calls: int
    steps: int
    stopped: Stop | None
    cosines: list[float]


def refine(
    targets: np.ndarray,
    first: Sequence[Sequence[H]],
    encoder: Encoder,
    corrector: Corrector[H],
    *,
    steps: int = 10,
    beam: int = 4,
    chunk: int = 128,
    close_enough: float = CLOSE_ENOUGH,
    max_encoder_calls: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_step: Callable[[int, Refined[H]], None] | None = None,
) -> list[Refined[H]]:
    """Brings hypotheses closer to the vectors that they are to explain; of equally close ones the first wins.

    A vector's result depends on no other vector, as far as encoder and corrector treat each row alone.

    Args:
        targets: [N, D] vectors of this encoder, at any scale.
        first: one or more hypotheses of each.
        encoder: gets " " for an empty text, which some encoders refuse.
        corrector: writes proposals.
        steps: corrections at most; 0 takes the closest of the first hypotheses.
        beam: b.
        chunk: texts in one call of the encoder at most.
        close_enough: cosine at which a vector is done; above 1, it never is for that reason.
        max_encoder_calls: texts embedded for one vector at most, those of its first hypotheses and of what is proposed
            for its closest ones before others.
        on_progress: called with the number of vectors done, whenever it has grown.
        on_step: called with a vector's row and what has come of it so far, once its first hypotheses are embedded and
            after each of its steps; what it raises ends all.

    Raises:
        ValueError: an argument is out of its range, vectors and hypotheses are not equally many, a target is zero or
            not finite, the encoder's vectors are not finite or of another dimension, or the corrector gave more or
            fewer proposals than it was asked for.
    """
    limits = {"steps": (steps, 0), "beam": (beam, 1), "chunk": (chunk, 1), "max_encoder_calls": (max_encoder_calls, 1)}
    for name, (value, least) in limits.items():
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; give at least {least}")
    if np.ndim(targets) != 2:
        raise ValueError(f"targets: expected a matrix [N, D], got shape {np.shape(targets)}; give one row for each")
    targets = check_embeddings(targets, np.shape(targets)[1], "targets")
    if len(first) != len(targets):
        raise ValueError(f"first: hypotheses of {len(first)} vectors for {len(targets)} targets; give as many")
    if empty := [row for row, hypotheses in enumerate(first) if not hypotheses]:
        raise ValueError(f"first: vector {empty[0]} has no hypothesis; give at least one")
    searches = [_Search[H](row, target, beam, max_encoder_calls) for row, target in enumerate(targets)]
    for search, hypotheses in zip(searches, first, strict=True):
        search.take(hypotheses)
    going, done = searches, 0
    while going:
        _embed(going, encoder, chunk)
        for search in going:
            search.judge(steps, close_enough)
            if on_step is not None:
                on_step(search.row, search.result())
        going = [search for search in going if search.stopped is None]
        if on_progress is not None and done < len(searches) - len(going):
            done = len(searches) - len(going)
            on_progress(done)
        if going:
            _correct(going, corrector, beam)
    return [search.result() for search in searches]


@dataclass
class _Held(Generic[H]):
    """A hypothesis that is held."""

    hypothesis: H
    vector: np.ndarray  # [D] its own
    rank: tuple[float, int]  # -cosine, place in line; the smallest is the best
    corrected: bool = False


@dataclass
class _Search(Generic[H]):
    """The search for one vector's text."""

    row: int
    target: np.ndarray  # [D]
    width: int  # b
    max_encoder_calls: int | None
    held: list[_Held[H]] = field(default_factory=list)  # sorted, b at most
    line: dict[str, tuple[int, H]] = field(default_factory=dict)  # text to embed -> place in line, its hypothesis
    seen: set[str] = field(default_factory=set)  # all texts that ever stood in line
    cosines: list[float] = field(default_factory=list)
    stopped: Stop | None = None

    def take(self, hypotheses: Sequence[H]) -> None:
        """Puts those in line whose texts are new, as long as there are encoder calls left."""
        for hypothesis in hypotheses:
            text = hypothesis.text or " "
            if text not in self.seen and len(self.seen) != self.max_encoder_calls:
                self.seen.add(text)
                self.line[text] = (len(self.seen), hypothesis)

    def hold(self, text: str, vector: np.ndarray, cosine: float) -> None:
        """Holds a text of the line if it is among the b best so far, in whatever order they come."""
        place, hypothesis = self.line[text]
        rank = (-cosine, place)
        if len(self.held) < self.width or rank < self.held[-1].rank:
            insort(self.held, _Held(hypothesis, vector.copy(), rank), key=lambda held: held.rank)
            del self.held[self.width :]

    def judge(self, steps: int, close_enough: float) -> None:
        """Ends a step: the line is through. Notes the best cosine, and whether it was the last step."""
        self.line = {}
        self.cosines.append(-self.held[0].rank[0])
        if self.cosines[-1] >= close_enough:
            self.stopped = "close_enough"
        elif len(self.seen) == self.max_encoder_calls:
            self.stopped = "encoder_calls"
        elif all(held.corrected for held in self.held):
            self.stopped = "converged"
        elif len(self.cosines) > steps:
            self.stopped = "steps"

    def result(self) -> Refined[H]:
        count, made = len(self.seen), len(self.cosines) - 1
        return Refined(self.held[0].hypothesis, self.cosines[-1], count, made, self.stopped, list(self.cosines))


def _correct(searches: list[_Search[H]], corrector: Corrector[H], count: int) -> None:
    """Puts in each search's line what is proposed for the hypotheses that it holds, the closest first."""
    asked = [(search, held) for search in searches for held in search.held if not held.corrected]  # M
    targets, own = np.stack([search.target for search, _ in asked]), np.stack([held.vector for _, held in asked])
    found = corrector.propose(targets, [held.hypothesis.text for _, held in asked], own, count)
    if len(found) != len(asked):
        raise ValueError(f"corrector: proposals for {len(found)} of {len(asked)} hypotheses; return a row for each")
    for (search, held), proposals in zip(asked, found, strict=True):
        if len(proposals) != count:
            raise ValueError(f"corrector: {len(proposals)} proposals for a hypothesis; return {count}, as asked")
        held.corrected = True
        search.take(proposals)


def _embed(searches: list[_Search[H]], encoder: Encoder, chunk: int) -> None:
    """Embeds the texts in line, each once; what no search holds goes with its chunk, for all would fill gigabytes."""
    askers: dict[str, list[_Search[H]]] = {}
    for search in searches:
        for text in search.line:
            askers.setdefault(text, []).append(search)
    texts = list(askers)
    for start in range(0, len(texts), chunk):
        part = texts[start : start + chunk]
        own = _encode(encoder, part, len(searches[0].target))  # [K, D]
        pairs = [(row, search) for row, text in enumerate(part) for search in askers[text]]
        cosines = _cosines(own[[row for row, _ in pairs]], np.stack([search.target for _, search in pairs]))
        for (row, search), cosine in zip(pairs, cosines.tolist(), strict=True):
            search.hold(part[row], own[row], cosine)


def _encode(encoder: Encoder, texts: list[str], dim: int) -> np.ndarray:
    """[K, D] float32, checked."""
    own = np.asarray(encoder.encode(texts), dtype=np.float32)
    if own.shape != (shape := (len(texts), dim)):
        raise ValueError(f"encoder: vectors of shape {own.shape}, not {shape}; take the encoder that made the targets")
    if len(bad := np.flatnonzero(~np.isfinite(own).all(axis=1))):
        raise ValueError(f"encoder: the vector of {texts[bad[0]]!r} holds NaN or infinity; run the encoder in float32")
    return own


def _cosines(own: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[P] float64, of rows [P, D]; -inf where a vector has no direction. Each comes of its own row alone."""
    own, targets = own.astype(np.float64), targets.astype(np.float64)
    norms = np.sqrt((own * own).sum(axis=1) * (targets * targets).sum(axis=1))
    return np.divide((own * targets).sum(axis=1), norms, out=np.full(len(own), -np.inf), where=norms > 0)
