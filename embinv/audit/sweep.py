"""Every defence at every setting: what it still leaks, to an attacker who knows nothing of it and to one who adapts,
and what it costs in retrieval.

Leakage is always held against the original texts: what a redaction took out counts as not read. The attacker has texts
of his own, of the same kind; the store is the held-out texts'. PCA and product quantisation are fitted on the
attacker's texts too, so that nothing here has seen the store. What this does not do: draw, or write a report.

Shapes: N vectors of the store, K of the attacker, D embedding, S of the store.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embinv.audit.adaptation import adapt, texts_held_back
from embinv.audit.pareto import on_front
from embinv.audit.redacting import FindSpans
from embinv.audit.rotation_attack import rotation_rows
from embinv.audit.sweep_settings import SweepSettings
from embinv.audit.utility import DEPTH, retrieval_utility
from embinv.checkpoint import Checkpoint
from embinv.data.pairs import Pairs
from embinv.decoding.options import Choices
from embinv.defences.base import Defence, Fitted
from embinv.defences.redaction import redact_all
from embinv.defences.rotation import Rotation
from embinv.encoders.base import Encoder
from embinv.inverter import TextInverter
from embinv.metrics.entities import Entities, entity_recall
from embinv.metrics.figures import Figure, rounded
from embinv.metrics.tokens import exact_match, token_f1

DEFINITIONS = {
    "token_f1": "F1 between the bags of tokens of the original and what was read from the store, mean over texts",
    "exact_match": "share of texts read to the last token",
    "entity_recall": "share of the labelled names, numbers and dates of the originals that stand in what was read",
    "leakage": "to an attacker who has an inverter for the encoder and knows of no defence",
    "adapted": "to one who protects texts of his own in the same way, maps them back and trains on them; null where no "
    "training was asked for",
    "ndcg_at_10": "of the ten nearest others by exact cosine without a defence; gains are 10 for the nearest, to 1",
    "recall_at_10": "share of those ten among the ten that the defended store finds",
    "on_front": "no other defence has as little token F1 (the worst attacker's) and as high an nDCG, and less or more "
    "of one",
    "worst": "token F1 of the attacker who reads most, and who that is: leakage, adapted, or rotation, who knows "
    "pairs of a rotated store",
    "f1_share": "token F1 from a rotated store, undone with so many known pairs, over that without a rotation",
}
"""What each figure means, word for word as reports give it."""


@dataclass(frozen=True)
class _Store:
    """A defended store, and what the attacker needs to adapt to it.

    Attributes:
        stored: [N, S] decoded content.
        queries: [N, S] of the same texts.
        seen: [N, D] what is put into an inverter.
        own: gives [K, D], the attacker's own texts as seen.
    """

    defence: str
    setting: str
    bytes_per_vector: int
    stored: np.ndarray
    queries: np.ndarray
    seen: np.ndarray
    own: Callable[[], np.ndarray]


def sweep(
    inverter: TextInverter,
    checkpoint: Checkpoint,
    known: Pairs,
    held_out: Pairs,
    settings: SweepSettings,
    *,
    entities: Entities | None = None,
    encoder: Encoder | None = None,
    find_spans: FindSpans | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures all defences that the settings ask for.

    Args:
        inverter: of the checkpoint, for the attacker who knows of no defence.
        checkpoint: where the attacker who adapts starts.
        known: the attacker's own texts, with the tokenizer's ids: the train split.
        held_out: those of the store: the test split.
        settings: which defences, and how much of everything.
        entities: each held-out text's labelled (kind, surface form); without them, entity recall is left out.
        encoder: encodes redacted texts; without it, redaction is left out.
        find_spans: says what a redaction takes out of each text; without it, redaction is left out.
        on_progress: gets a line now and then.

    Returns:
        `rows`, the first of them without a defence: defence, setting, bytes_per_vector, leakage and adapted (null
        with 0 steps) with token_f1, exact_match and entity_recall (where labelled) and their standard errors (`_se`),
        worst with attacker, token_f1 and token_f1_se, ndcg_at_10 and recall_at_10 with theirs, on_front. `rotation`:
        pairs, token_f1, token_f1_se, f1_share. `n`, `known`, `settings`, `changed` (where the usual settings do
        not fit) and `definitions` say what was measured.

    Raises:
        ValueError: a setting does not fit the vectors, a library is missing, or there are too few texts; raised before
            anything is measured, but for what the encoder and `find_spans` raise.
    """
    dim = inverter.config.pairs.encoder.dim
    for pairs, name in ((known, "known"), (held_out, "held-out")):
        if pairs.embeddings.shape[1] != dim:
            raise ValueError(f"{name} vectors have {pairs.embeddings.shape[1]} dimensions, this inverter takes {dim}")
    if entities is not None and len(entities) != len(held_out):
        raise ValueError(f"entities of {len(entities)} texts were given for {len(held_out)}; give a list for each text")
    if len(held_out) <= DEPTH:
        raise ValueError(f"a sweep needs at least {DEPTH + 1} held-out texts, got {len(held_out)}; give more")
    inverter.require(Choices(settings.strategy or inverter.strategies[0], settings.steps, settings.seed))
    rows = np.random.default_rng(settings.seed).permutation(len(held_out))[: settings.rows]
    texts = held_out.take(rows)
    own = known.sample(settings.known_rows, settings.seed)
    settings, changed = settings.fitting(dim, len(own))
    for line in changed:
        on_progress(line)
    texts_held_back(len(own), settings.adaptation)  # refuses too few
    labelled = None if entities is None else [entities[row] for row in rows.tolist()]
    attack = _Attack(inverter, texts, labelled, settings)
    vectors, own_vectors = texts.embeddings.astype(np.float32), own.embeddings.astype(np.float32)
    fitted = [(defence, defence.fit(own_vectors, settings.seed)) for defence in settings.defences(dim)]

    def measured(store: _Store) -> dict[str, Any]:
        on_progress(f"{store.defence} {store.setting}".strip())
        leakage, adapted = attack.leakage(store.seen), None
        utility = retrieval_utility(vectors, store.stored, store.queries)
        if settings.adaptation.steps:
            batch, precision, seed = inverter.batch_size, inverter.precision, settings.seed
            attacker = adapt(checkpoint, own, store.own(), settings.adaptation, seed, batch, precision)
            on_progress(f"- mapped back: {attacker.back_by}; training {'kept' if attacker.kept else 'thrown away'}")
            adapted = attack.leakage(attacker.read(store.seen), attacker.inverter)
        return {
            "defence": store.defence,
            "setting": store.setting,
            "bytes_per_vector": store.bytes_per_vector,
            "leakage": leakage,
            "adapted": adapted,
            **rounded({"ndcg_at_10": utility.ndcg_at_10, "recall_at_10": utility.recall_at_10}),
        }

    found = [measured(_defended(each, vectors, own_vectors, settings.seed)) for each in fitted]
    if settings.redaction and encoder is not None and find_spans is not None:
        found.append(measured(_redacted(texts.texts, own.texts, vectors, encoder, find_spans)))
    undone = _rotation(attack, vectors, own_vectors, settings, on_progress) if settings.rotation else []
    found = [{**row, "worst": _worst(row, undone)} for row in found]
    front = on_front([row["worst"]["token_f1"] for row in found], [row["ndcg_at_10"] for row in found])
    return {
        "n": len(texts),
        "known": len(own),
        "settings": settings.model_dump(mode="json"),
        "changed": changed,
        "rows": [{**row, "on_front": on} for row, on in zip(found, front, strict=True)],
        "rotation": undone,
        "definitions": DEFINITIONS,
    }


@dataclass(frozen=True)
class _Attack:
    """Reading the held-out texts from whatever is seen of the store."""

    inverter: TextInverter
    texts: Pairs
    entities: Entities | None
    settings: SweepSettings

    def figures(self, seen: np.ndarray, inverter: TextInverter | None = None) -> dict[str, Figure]:
        """Of what an inverter reads from [N, D] vectors; a row of zeros is read too."""
        reader = inverter or self.inverter
        said = reader.invert_unchecked(
            seen, strategy=self.settings.strategy, steps=self.settings.steps, seed=self.settings.seed
        )
        originals = [reader.tokenizer.content(ids) for ids in self.texts.token_ids.tolist()]
        ids = [inversion.token_ids for inversion in said]
        figures = {"token_f1": token_f1(originals, ids), "exact_match": exact_match(originals, ids)}
        if self.entities is not None and sum(map(bool, self.entities)) >= 2:
            figures["entity_recall"] = entity_recall(self.entities, [inversion.text for inversion in said])
        return figures

    def leakage(self, seen: np.ndarray, inverter: TextInverter | None = None) -> dict[str, float]:
        """`figures` as a report holds them."""
        return rounded(self.figures(seen, inverter))


def _defended(each: tuple[Defence, Fitted], vectors: np.ndarray, own: np.ndarray, seed: int) -> _Store:
    """Vectors [N, D] behind a defence; the attacker's own [K, D] get other draws than the store."""
    defence, fitted = each
    stored = fitted.protect(vectors, seed + 1)
    return _Store(
        defence.name,
        defence.setting,
        defence.bytes_per_vector(vectors.shape[1]),
        stored,
        fitted.query(vectors),
        fitted.as_seen(stored),
        lambda: fitted.as_seen(fitted.protect(own, seed + 2)),
    )


def _redacted(texts: list[str], own: list[str], vectors: np.ndarray, encoder: Encoder, find_spans: FindSpans) -> _Store:
    """Vectors of texts without what `find_spans` finds; queries are those of whole texts, [N, D]."""

    def encoded(originals: list[str]) -> np.ndarray:
        return encoder.encode(redact_all(originals, find_spans(originals))).astype(np.float32)

    stored = encoded(texts)
    return _Store("redaction", "", 4 * vectors.shape[1], stored, vectors, stored, lambda: encoded(own))


def _worst(row: dict[str, Any], undone: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Who reads most, and how much; of a rotation those with known pairs count too."""
    attackers = [(name, row[name]) for name in ("leakage", "adapted") if row[name] is not None]
    if row["defence"] == Rotation.name:
        attackers += [("rotation", each) for each in undone]
    attacker, figures = max(attackers, key=lambda each: each[1]["token_f1"])
    return {"attacker": attacker} | {name: figures[name] for name in ("token_f1", "token_f1_se")}


def _rotation(
    attack: _Attack,
    vectors: np.ndarray,
    own: np.ndarray,
    settings: SweepSettings,
    on_progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The rows of known pairs, as many of them as the attacker has texts."""
    secret = Rotation().fit(own, settings.seed)
    known = own, secret.protect(own, settings.seed)

    def measure(seen: np.ndarray) -> Figure:
        return attack.figures(seen)["token_f1"]

    def counts() -> Iterator[int]:
        for pairs in sorted(set(settings.known_pairs)):
            if pairs <= len(own):
                on_progress(f"a rotation undone with {pairs} known pairs")
                yield pairs

    return rotation_rows(known, own, secret.protect(vectors, settings.seed), counts(), measure, measure(vectors))
