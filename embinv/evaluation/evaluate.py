"""What an inverter is worth, told honestly.

Every figure is generation from a full mask on held-out texts, over content tokens, with n and standard error, beside
its baselines: the zero embedding (what the text model knows by itself), shuffled embeddings (what any text of this
kind would score), the nearest training neighbour (what retrieval alone gives) and the one fixed text that the training
texts would give to every vector. Accuracy under a partial mask is measured too and named by its mask.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.calibration import Calibration, NothingToCalibrate
from embinv.config import EvaluationSettings
from embinv.data.pairs import Pairs
from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.options import GREEDY, Choices
from embinv.decoding.refine import Corrector
from embinv.encoders.base import Encoder
from embinv.evaluation.baselines import derangement, nearest_neighbours, unconditional
from embinv.evaluation.gaps import accuracy_at_masks
from embinv.evaluation.generation import DEFINITIONS, Generation, accuracy_by_language, by_length, by_position
from embinv.evaluation.refinement import REWRITING, refinement_rows
from embinv.evaluation.reliability import (
    calibrate,
    calibration_errors,
    predictions,
    reliability_curves,
)
from embinv.evaluation.scores import scores_table
from embinv.evaluation.sweep import sweep_tables, sweep_tasks
from embinv.inversion import Inversion, with_probabilities
from embinv.inverter import DiffusionInverter, TextInverter
from embinv.metrics.entities import Entities, entity_recall, entity_recall_by_kind
from embinv.metrics.figures import Figure, rounded
from embinv.metrics.perplexity import LanguageModel, TooFewTexts, perplexity
from embinv.metrics.text import cosine
from embinv.tasks import Done, Invert, Task, Way, invert_here

log = logging.getLogger(__name__)

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        report: figures, plain values for JSON.
        scores: a row for each text, see `embinv.evaluation.scores`.
        calibration: what confidence is worth, if it was fitted now.
    """

    report: dict[str, Any]
    scores: pa.Table
    calibration: Calibration | None = None


def evaluate(
    inverter: TextInverter,
    test: Pairs,
    training: Pairs,
    encoder: Encoder | None,
    settings: EvaluationSettings,
    language_model: LanguageModel | None = None,
    on_progress: OnProgress = lambda line: None,
    *,
    validation: Pairs | None = None,
    entities: Entities | None = None,
    invert: Invert | None = None,
    corrector: Corrector[Inversion] | None = None,
) -> Evaluation:
    """Measures an inverter on held-out pairs.

    Args:
        inverter: a loaded checkpoint.
        test: held-out pairs, at least two, in a random order.
        training: the pairs it was trained on, for the baselines that need no model.
        encoder: re-encodes recovered texts for the cosine; without one, the cosine is left out.
        settings: how to decode, and how many originals the report shows beside what was recovered.
        language_model: scores recovered texts for the perplexity; without one, the perplexity is left out.
        on_progress: gets a line now and then.
        validation: texts that it neither learnt from nor is measured on, to fit what its confidence is worth where
            this way of decoding was not calibrated yet; without them, probabilities are left out.
        entities: each test text's labelled (kind, surface form); without them, entity recall is left out.
        invert: does the decoding; None does it in this process.
        corrector: a trained one, for rows of its own in the table of refinement.
    """
    strategy = settings.strategy or inverter.strategies[0]
    inverter.require(Choices(strategy, settings.steps, settings.seed, settings.decoding))
    way = Way(strategy, inverter.passes(strategy, settings.steps), settings.decoding)
    if inverter.calibrations.find(way.strategy, way.steps, way.options) is not None:
        validation = None
    vectors = test.embeddings.astype(np.float32)
    originals = [inverter.tokenizer.content(ids) for ids in test.token_ids.tolist()]
    tasks = {"test": Task(vectors, way, settings.seed), "zero": _nothing(vectors, way, settings.seed)}
    if validation is not None:
        tasks["validation"] = Task(validation.embeddings.astype(np.float32), way, settings.seed)
    swept, seq_len = min(settings.sweep_rows, len(test)), inverter.config.pairs.seq_len
    if swept >= 2:
        tasks |= sweep_tasks(inverter.strategies, vectors[:swept], settings.steps, seq_len, settings.seed)
    done = (invert or invert_here(inverter, on_progress))(tasks)

    fitted = None if validation is None else _fitted(inverter, way, validation, done["validation"])
    inversions = with_probabilities(done["test"].inversions, fitted)
    recovered = Generation(originals, test.texts, inversions)
    predicted = predictions(recovered)
    texts = [inversion.text for inversion in inversions]
    figures = recovered.figures() | calibration_errors(predicted)
    if encoder is not None:
        on_progress("re-encoding what was recovered")
        figures["cosine"] = cosine(vectors, encoder.encode([text or " " for text in texts]))
    if language_model is not None:
        on_progress("the perplexity of what was recovered, and of the originals")
        figures |= perplexities(language_model, texts, test.texts)
    if isinstance(inverter, DiffusionInverter):  # others fill no gaps
        on_progress("gaps, with the rest of a text in sight")
        ends, model = (inverter.tokenizer.eos_id, inverter.tokenizer.pad_id), inverter.model
        figures |= accuracy_at_masks(model, test, ends, inverter.vocabulary, inverter.device, seed=settings.seed)
    figures |= _recall(entities, inversions)
    on_progress("baselines")
    # What a shuffled vector gives is what its owner's vector gave.
    others = {
        "zero": done["zero"].inversions * (len(test) // len(done["zero"].inversions)),
        "shuffled": [inversions[i] for i in derangement(len(test), settings.seed)],
        "nearest": nearest_neighbours(vectors, training, inverter.tokenizer),
        "unconditional": [unconditional(training, inverter.tokenizer)] * len(test),
    }
    report = {
        "n": len(test),
        "strategy": strategy,
        "steps": way.steps if strategy in WRITERS else settings.steps,
        "decoding": settings.decoding.model_dump(),
        "seq_len": seq_len,
        **rounded(figures),
        "baselines": {
            name: rounded(Generation(originals, test.texts, said).figures() | _recall(entities, said))
            for name, said in others.items()
        },
        "reliability": reliability_curves(predicted),
        "samples_per_second": {"invert": round(len(test) / done["test"].seconds, 1)},
        "by_position": by_position(originals, inversions),
        "by_length": by_length(originals, inversions),
        "languages": accuracy_by_language(test.langs, originals, inversions),
        "examples": [_example(test.texts[i], inversions[i]) for i in range(min(settings.examples, len(test)))],
        "definitions": DEFINITIONS,
    }
    if entities is not None and "entity_recall" in figures:
        report["entities"] = {
            kind: {"n": figure.n, **rounded({"entity_recall": figure})}
            for kind, figure in entity_recall_by_kind(entities, texts).items()
        }
    if swept >= 2:
        passes = way.steps if strategy in WRITERS else min(settings.steps, seq_len)
        report |= sweep_tables(tasks, done, originals[:swept], test.langs[:swept], passes)
    if swept >= 2 and settings.refine and encoder is not None:
        milliseconds = 1000 * done["test"].seconds / len(test)
        decoded = Generation(originals[:swept], test.texts[:swept], done["test"].inversions[:swept])
        report["refinement"] = refinement_rows(
            inverter,
            vectors[:swept],
            decoded,
            encoder,
            settings.refine,
            settings.seed,
            milliseconds,
            on_progress,
            REWRITING if corrector is None else {**REWRITING, "corrector": corrector},
        )
    return Evaluation(report, scores_table(test, inversions, figures), fitted)


def _nothing(vectors: np.ndarray, way: Way, seed: int) -> Task:
    """The zero embedding: one text, or where texts are sampled, one for each vector."""
    alike = 1 if way.strategy in (*GREEDY, *WRITERS) else len(vectors)
    return Task(np.zeros_like(vectors[:alike]), way, seed, distinct=True)


def _fitted(inverter: TextInverter, way: Way, validation: Pairs, done: Done) -> Calibration | None:
    """What confidence is worth; None, said in the log, where there is nothing to learn it from."""
    try:
        return calibrate(inverter.tokenizer, validation, way, done.inversions)
    except NothingToCalibrate as error:
        log.warning("probabilities are left out: %s", error)
        return None


def _recall(entities: Entities | None, said: Sequence[Inversion]) -> dict[str, Figure]:
    """Entity recall, if at least two texts have an entity."""
    if entities is None or sum(map(bool, entities)) < 2:
        return {}
    return {"entity_recall": entity_recall(entities, [inversion.text for inversion in said])}


def _example(original: str, inversion: Inversion) -> dict[str, Any]:
    return {
        "original": original,
        "recovered": inversion.text,
        "confidence": inversion.confidence,
        "probability": inversion.probability,
    }


def perplexities(
    language_model: LanguageModel, recovered: Sequence[str], originals: Sequence[str]
) -> dict[str, Figure]:
    """Of the recovered texts and of the originals; absent where fewer than two texts have two tokens."""
    found = {}
    for name, texts in (("perplexity", recovered), ("perplexity_of_originals", originals)):
        try:
            found[name] = perplexity(texts, language_model).figure
        except TooFewTexts as error:
            log.warning("%s is left out: %s", name, error)
    return found
