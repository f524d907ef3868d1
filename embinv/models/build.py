"""Which denoiser a config asks for, and which one a checkpoint holds.

Backbones are imported when one is asked for: transformers' code of them takes two seconds.
"""

from collections.abc import Callable
from typing import Any

from embinv.data.vocabulary import Vocabulary
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import Architecture, BackboneConfig, MDLMConfig, ModelSettings


def new_denoiser(
    settings: ModelSettings, vocabulary: Vocabulary, embedding_dim: int, seq_len: int, tokenizer_hash: str | None = None
) -> MaskedDenoiser:
    """A model to be trained: from scratch, or from the backbone that the settings name.

    Args:
        settings: the config's `model` section.
        vocabulary: which of the tokenizer's ids the model knows.
        embedding_dim: D.
        seq_len: L.
        tokenizer_hash: fingerprint of the pairs' tokenizer, to refuse a backbone of another.

    Raises:
        ValueError: the backbone cannot be used; see `pretrained_denoiser`.
    """
    if settings.backbone is None:
        return ConditionalMDLM(settings.resolve(vocabulary.size, embedding_dim, seq_len))
    from embinv.models.pretrained import pretrained_denoiser

    return pretrained_denoiser(settings, vocabulary, embedding_dim, seq_len, tokenizer_hash)


def empty_denoiser(config: Architecture) -> MaskedDenoiser:
    """The architecture of a checkpoint, without download; its weights mean nothing until they are loaded."""
    return _DENOISERS[type(config)](config)


def _backbone(config: BackboneConfig) -> MaskedDenoiser:
    from embinv.models.backbone import BackboneDenoiser

    return BackboneDenoiser(config)


_DENOISERS: dict[type[Architecture], Callable[[Any], MaskedDenoiser]] = {
    MDLMConfig: ConditionalMDLM,
    BackboneConfig: _backbone,
}
