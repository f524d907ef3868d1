"""Which model a config asks for, and which model a checkpoint holds.

Backbones and T5 are imported when one is asked for: transformers' code of them takes two seconds.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from torch import nn

from embinv.data.vocabulary import Vocabulary
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.inverter_model import InverterModel
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.mdlm_corrector import CorrectingMDLM
from embinv.models.settings import Architecture, BackboneConfig, MDLMConfig, MDLMCorrectorConfig, ModelSettings
from embinv.models.t5_settings import T5CorrectorConfig, T5InverterConfig


def new_model(
    settings: ModelSettings,
    vocabulary: Vocabulary,
    embedding_dim: int,
    seq_len: int,
    ends: tuple[int, int],
    tokenizer_hash: str | None = None,
) -> InverterModel[Any]:
    """A model to be trained: from scratch, or from the backbone that the settings name.

    Args:
        settings: the config's `model` section.
        vocabulary: which of the tokenizer's ids the model knows.
        embedding_dim: D.
        seq_len: L.
        ends: the model's ids of EOS and PAD.
        tokenizer_hash: fingerprint of the pairs' tokenizer, to refuse a backbone of another.

    Raises:
        ValueError: the backbone cannot be used, see `embinv.models.pretrained`; or widths do not fit each other.
    """
    if settings.family == "t5":
        from embinv.models.t5_pretrained import new_t5

        return new_t5(settings, vocabulary, embedding_dim, seq_len, ends, tokenizer_hash)
    if settings.backbone is None:
        config = settings.resolve(vocabulary.size, embedding_dim, seq_len)
        return CorrectingMDLM(config) if settings.corrector else ConditionalMDLM(config)
    from embinv.models.pretrained import pretrained_denoiser

    return pretrained_denoiser(settings, vocabulary, embedding_dim, seq_len, tokenizer_hash)


def empty_model(config: Architecture | T5InverterConfig) -> nn.Module:
    """The architecture of a checkpoint, without download; its weights mean nothing until they are loaded."""
    return _MODELS[type(config)](config)


def _t5(config: T5InverterConfig) -> nn.Module:
    from embinv.models.t5_pretrained import empty_t5

    return empty_t5(config)


def _backbone(config: BackboneConfig) -> MaskedDenoiser:
    from embinv.models.backbone import BackboneDenoiser

    return BackboneDenoiser(config)


_MODELS: dict[type[BaseModel], Callable[[Any], nn.Module]] = {
    MDLMConfig: ConditionalMDLM,
    MDLMCorrectorConfig: CorrectingMDLM,
    BackboneConfig: _backbone,
    T5InverterConfig: _t5,
    T5CorrectorConfig: _t5,
}
