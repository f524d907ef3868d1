"""What a backbone's files give: its tokenizer, which must be that of the pairs, and every weight of its model.

Shapes: V vocabulary.

Only transformers' own code is run, and only safetensors are read.
"""

from typing import Any, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.spec import resolve_model

Model = TypeVar("Model", bound=PreTrainedModel)


def own_tokenizer(name: str, revision: str | None, vocabulary: Vocabulary, tokenizer_hash: str | None) -> TextTokenizer:
    """The tokenizer of a backbone.

    Args:
        name: hub id, folder or pkg://package/path.
        revision: hub commit or tag.
        vocabulary: which of the pairs' ids the model knows.
        tokenizer_hash: fingerprint of the pairs' tokenizer; null compares the number of its ids alone.

    Raises:
        ValueError: it cannot be read, or is not that of the pairs.
    """
    try:
        tokenizer = TextTokenizer(name, revision)
    except ValueError as error:
        raise ValueError(f"model.backbone {name!r} cannot be used: {error}") from error
    alike = tokenizer_hash is None or tokenizer.fingerprint() == tokenizer_hash
    if tokenizer.vocab_size != vocabulary.full_size or not alike:
        how = f"the pairs have one of {vocabulary.full_size:,} ids, the backbone one of {tokenizer.vocab_size:,}"
        if tokenizer.vocab_size == vocabulary.full_size:
            how = f"both have {tokenizer.vocab_size:,} ids, but another rule or another order of them"
        raise ValueError(
            f"data.tokenizer is not that of model.backbone {name!r}: {how}; set data.tokenizer to null, which is the "
            "backbone's own, and encode again"
        )
    return tokenizer


def kept_ids(name: str, known: int, vocabulary: Vocabulary) -> Tensor:
    """The tokenizer's id of each of the model's: [V] int64.

    Args:
        name: of the backbone, for the message.
        known: rows of its token embedding.
        vocabulary: of the model.

    Raises:
        ValueError: the tokenizer has more ids than that.
    """
    if known < vocabulary.full_size:
        raise ValueError(f"model.backbone {name!r}: its tokenizer has ids that its token embedding does not know")
    return torch.from_numpy(vocabulary.original(np.arange(vocabulary.size))).long()


def whole_model(name: str, revision: str | None, kind: type[Model], known: str) -> Model:
    """The backbone in float32, with every weight read from its files.

    Args:
        name: hub id, folder or pkg://package/path.
        revision: hub commit or tag.
        kind: what it must be.
        known: what to name instead, for messages.

    Raises:
        ValueError: it cannot be read, is of another kind, or lacks a weight.
    """
    source = resolve_model(name)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        if not isinstance(config, kind.config_class or ()):
            raise ValueError(f"it is a {config.model_type}; name {known}")
        model, found = cast(
            tuple[Model, dict[str, Any]],
            kind.from_pretrained(
                source,
                revision=revision or "main",
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            ),
        )
        if absent := sorted(found["missing_keys"]):
            raise ValueError(f"{absent[0]} is absent; name the whole of {known}")
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model.backbone {name!r} cannot be used: {reason}") from error
    return model
