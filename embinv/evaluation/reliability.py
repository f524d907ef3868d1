"""Whether an inverter's probabilities come true: fitted on validation texts, measured on others.

The maps themselves are in calibration.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from embinv.calibration import NEARLY_RIGHT, Calibration, fit
from embinv.data.pairs import Pairs
from embinv.data.tokenizer import TextTokenizer
from embinv.evaluation.generation import Generation
from embinv.inversion import Inversion
from embinv.metrics.calibration import expected_calibration_error, reliability, rightness, share_right
from embinv.metrics.figures import Figure
from embinv.tasks import Way


def calibrate(tokenizer: TextTokenizer, validation: Pairs, way: Way, inversions: Sequence[Inversion]) -> Calibration:
    """Fits what confidence is worth on validation texts and what was recovered of them.

    Args:
        tokenizer: of the pairs.
        validation: texts that the inverter did not learn from and that it is not measured on.
        way: how they were decoded.
        inversions: one for each text.

    Raises:
        NothingToCalibrate: not one token was recovered.
    """
    return fit(
        way.strategy,
        way.steps,
        way.options,
        [tokenizer.content(ids) for ids in validation.token_ids.tolist()],
        [inversion.token_ids for inversion in inversions],
        [inversion.token_confidence for inversion in inversions],
        [inversion.confidence for inversion in inversions],
    )


@dataclass(frozen=True)
class Predictions:
    """Probabilities [N] that were given, what came true of them [N], and the text [N] each belongs to."""

    probabilities: np.ndarray
    outcomes: np.ndarray
    texts: np.ndarray


def predictions(generation: Generation) -> dict[str, Predictions]:
    """Those of tokens and of texts; nothing where the way of decoding was not calibrated."""
    tokens, outcomes, owners, of_texts, nearly = [], [], [], [], []
    for row, (original, inversion) in enumerate(zip(generation.originals, generation.inversions, strict=True)):
        if inversion.token_probability is None or inversion.probability is None:
            return {}
        tokens += inversion.token_probability
        outcomes += rightness(original, inversion.token_ids)
        owners += [row] * len(inversion.token_ids)
        of_texts.append(inversion.probability)
        nearly.append(share_right(original, inversion.token_ids) >= NEARLY_RIGHT)
    found = {"text": Predictions(np.asarray(of_texts), np.asarray(nearly, dtype=float), np.arange(len(nearly)))}
    if len(set(owners)) > 1:
        found["token"] = Predictions(np.asarray(tokens), np.asarray(outcomes, dtype=float), np.asarray(owners))
    return found


def calibration_errors(found: Mapping[str, Predictions]) -> dict[str, Figure]:
    """The errors of the probabilities that were given, by what a report calls them."""
    names = {"token": "calibration_error", "text": "text_calibration_error"}
    return {
        names[kind]: expected_calibration_error(each.probabilities, each.outcomes, each.texts)
        for kind, each in found.items()
    }


def reliability_curves(found: Mapping[str, Predictions]) -> dict[str, list[dict[str, float]]]:
    """The bins behind the errors: n, predicted and observed."""
    return {
        kind: [asdict(part) for part in reliability(each.probabilities, each.outcomes)] for kind, each in found.items()
    }
