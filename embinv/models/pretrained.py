"""The first weights of a backbone: a pretrained masked language model, its vocabulary cut down to ours.

Only ModernBERT's own code is run, which transformers ships, and only safetensors are read. The pairs must have been
made with the backbone's tokenizer: its rows of token embedding and head are taken over by original id, and the row of
its mask token becomes the last.

Shapes: V vocabulary, H hidden.
"""

import torch
from torch import Tensor
from transformers import ModernBertForMaskedLM

from embinv.data.vocabulary import Vocabulary
from embinv.models.backbone import BackboneDenoiser
from embinv.models.pretrained_files import kept_ids, own_tokenizer, whole_model
from embinv.models.settings import BackboneConfig, ModelSettings, TransformerShape

KNOWN = "a ModernBERT, such as answerdotai/ModernBERT-base or jhu-clsp/mmBERT-base"


def pretrained_denoiser(
    settings: ModelSettings, vocabulary: Vocabulary, embedding_dim: int, seq_len: int, tokenizer_hash: str | None = None
) -> BackboneDenoiser:
    """A denoiser that says what the backbone of the settings says.

    Args:
        settings: name the backbone.
        vocabulary: which of the tokenizer's ids the model knows.
        embedding_dim: D.
        seq_len: L.
        tokenizer_hash: fingerprint of the pairs' tokenizer; null compares the number of its ids alone.

    Raises:
        ValueError: the backbone cannot be read, is no ModernBERT with a masked language model's head, or is not the
            owner of the pairs' tokenizer.
    """
    name = settings.backbone
    assert name is not None
    mask_id = _mask_id(name, settings.backbone_revision, vocabulary, tokenizer_hash)
    language_model = whole_model(name, settings.backbone_revision, ModernBertForMaskedLM, KNOWN)
    own = language_model.config
    kept = kept_ids(name, own.vocab_size, vocabulary)
    config = BackboneConfig(
        vocab_size=vocabulary.size,
        embedding_dim=embedding_dim,
        seq_len=seq_len,
        adaln=settings.adaln,
        pseudo_tokens=settings.pseudo_tokens or 0,
        dropout=settings.dropout,
        backbone=name,
        transformer=TransformerShape.model_validate({key: getattr(own, key) for key in TransformerShape.model_fields}),
    )
    denoiser = BackboneDenoiser(config)
    take_over(denoiser, language_model, kept, mask_id)
    return denoiser


@torch.no_grad()
def take_over(denoiser: BackboneDenoiser, language_model: ModernBertForMaskedLM, kept: Tensor, mask_id: int) -> None:
    """Copies every weight of a masked language model.

    Args:
        denoiser: of the language model's shape.
        language_model: what is copied.
        kept: [V] int64, original id of each of our ids.
        mask_id: original id of the mask token.
    """
    body, decoder = language_model.model, language_model.decoder
    rows = torch.cat([kept, torch.tensor([mask_id])])
    denoiser.token_embedding.weight.copy_(body.embeddings.tok_embeddings.weight[rows])
    denoiser.embedding_norm.load_state_dict(body.embeddings.norm.state_dict())
    for block, layer in zip(denoiser.blocks, body.layers, strict=True):
        block.get_submodule("layer").load_state_dict(layer.state_dict())
    denoiser.final_norm.load_state_dict(body.final_norm.state_dict())
    denoiser.prediction.load_state_dict(language_model.head.state_dict())
    if denoiser.head_weight is not None:
        denoiser.head_weight.copy_(decoder.weight[kept])
    if decoder.bias is not None:
        denoiser.head_bias.copy_(decoder.bias[kept])


def _mask_id(name: str, revision: str | None, vocabulary: Vocabulary, tokenizer_hash: str | None) -> int:
    """The mask token of the backbone's tokenizer, which must be that of the pairs."""
    mask_id = own_tokenizer(name, revision, vocabulary, tokenizer_hash).tokenizer.mask_token_id
    if not isinstance(mask_id, int):
        raise ValueError(f"model.backbone {name!r}: its tokenizer has no mask token; name {KNOWN}")
    return mask_id
