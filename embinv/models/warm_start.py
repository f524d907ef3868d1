"""A corrector that begins as the inverter whose hypotheses it is to correct: it need not learn again what that knows.

What reads the wanted vector, and all that reads and writes text, is the inverter's. Of a denoiser, what reads the
difference and the hypothesis's vector begins at zero, so that of a text that is all hidden it says just what the
inverter says. Of a T5, what reads them begins as it does from scratch.

Shapes: D embedding.
"""

import torch
from torch import Tensor

from embinv.models.inverter_model import InverterModel
from embinv.models.mdlm_corrector import CorrectingMDLM
from embinv.models.settings import MDLMConfig, MDLMCorrectorConfig
from embinv.models.t5_settings import T5CorrectorConfig, T5InverterConfig

READS_VECTORS = ("condition.0.weight", "pseudo_tokens.weight")  # of a denoiser, [.., D]
TRANSFORM = "embedding_transform."


def corrector_of(inverter: InverterModel, dropout: float = 0.0) -> InverterModel:
    """A corrector with an inverter's architecture and weights.

    Args:
        inverter: a `ConditionalMDLM` or a `T5Inverter`; it is left as it is.
        dropout: the corrector's own.

    Raises:
        ValueError: it is another model.
    """
    config, weights = inverter.config, inverter.state_dict()
    said = config.model_dump() | {"dropout": dropout}
    if type(config) is MDLMConfig:
        corrector = CorrectingMDLM(MDLMCorrectorConfig(**said))
        for name in READS_VECTORS:
            if name in weights:
                weights[name] = _widened(weights[name], CorrectingMDLM.vectors_read)
        corrector.load_state_dict(weights)
        return corrector
    if type(config) is T5InverterConfig:
        from embinv.models.t5_corrector import T5Corrector  # transformers' code of T5, which takes a second

        corrector = T5Corrector(T5CorrectorConfig(**said))
        renamed = {name.replace(TRANSFORM, f"{TRANSFORM[:-1]}_1."): tensor for name, tensor in weights.items()}
        corrector.load_state_dict(corrector.state_dict() | renamed)
        return corrector
    raise ValueError(
        f"a corrector cannot begin as an inverter of family {config.family}; give model.family t5, or none"
    )


def _widened(weight: Tensor, vectors: int) -> Tensor:
    """A map of one vector [.., D] as one of several in a row, of which it reads the first: [.., vectors x D]."""
    return torch.cat([weight, *(torch.zeros_like(weight) for _ in range(vectors - 1))], dim=1)
