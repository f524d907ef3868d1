"""Perplexity of texts under a causal language model: how likely what was recovered is as text of a language.

exp of the mean negative log-likelihood per token over all tokens of all texts (corpus level). Ids are those of the
model's own tokenizer, with the special tokens that it adds by itself; every id but a text's first is predicted from
those before it. Two models' figures can be compared only if they share a tokenizer. Nothing is truncated.

Shapes: B batch, L length, V vocabulary.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import TYPE_CHECKING, Any, cast

from embinv.metrics.figures import Figure, ratio_figure

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MAX_NATS = 700.0  # per token; exp of more is no float


class TooFewTexts(ValueError):
    """There is too little to measure."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        name: hub id or folder.
        model: [B, L] ids to logits [B, L, V]; in evaluation mode.
        tokenizer: texts to ids.
        max_tokens: the longest text that it reads, in tokens; None if its config knows no limit.
    """

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_tokens: int | None


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of texts.

    Attributes:
        figure: at least 1, no unit; n counts the texts that were measured.
        tokens: predicted tokens of these texts.
        left_out: texts of fewer than two tokens, in which nothing is predicted.
    """

    figure: Figure
    tokens: int
    left_out: int


def load_language_model(source: str, revision: str | None = None, device: str = "cpu") -> LanguageModel:
    """Reads a causal language model in float32, from safetensors only; no code of its repository is run.

    Args:
        source: hub id or folder.
        revision: hub commit or tag; None takes the hub's default.
        device: where it computes, such as cpu or cuda.

    Raises:
        ValueError: it cannot be read, lacks a weight, does not know its tokenizer's ids, or is not causal.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        model, found = cast(
            "tuple[PreTrainedModel, dict[str, Any]]",
            AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision or "main",
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            ),
        )
        if absent := sorted(found["missing_keys"]):
            raise ValueError(f"its weight {absent[0]} is absent")
        rows = cast(torch.Tensor, model.get_input_embeddings().weight).shape[0]
        if len(tokenizer) > rows:
            raise ValueError(f"its tokenizer has {len(tokenizer):,} ids and its token embedding {rows:,}")
        cast(torch.nn.Module, model).to(device).eval()
        if not _is_causal(model):
            raise ValueError("it reads the tokens that it should predict; name a causal language model")
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the language model {source!r} cannot be used: {_first_sentence(error)}") from error
    return LanguageModel(source, model, tokenizer, getattr(model.config, "max_position_embeddings", None))


def perplexity(texts: Sequence[str], language_model: LanguageModel, batch: int = 8) -> Perplexity:
    """Perplexity of texts: exp(sum of negative log-likelihoods / number of predicted tokens).

    The mean in the exponent is a ratio over texts (`ratio_figure`); the standard error of its exponential is that of
    the delta method, perplexity times the mean's own. Texts of like length share a batch, padded on the right;
    padding is neither read nor predicted.

    Args:
        texts: at least two of two tokens or more.
        language_model: as loaded.
        batch: texts at a time; logits take batch * longest text * V * 4 bytes.

    Raises:
        ValueError: fewer than two texts of two tokens, a text longer than the model reads, or logits that are not
            finite.
    """
    encoded = language_model.tokenizer(list(texts), verbose=False) if texts else {"input_ids": []}
    ids = cast(list[list[int]], encoded["input_ids"])
    limit = language_model.max_tokens
    for row, text in enumerate(ids):
        if limit is not None and len(text) > limit:
            raise ValueError(
                f"text {row} has {len(text):,} tokens and {language_model.name!r} reads {limit:,}; shorten it"
            )
    measured = sorted((text for text in ids if len(text) >= 2), key=len)
    left_out = len(ids) - len(measured)
    if len(measured) < 2:
        raise TooFewTexts(f"perplexity needs at least 2 texts of 2 tokens or more, got {len(measured)}")
    losses: list[float] = []
    for start in range(0, len(measured), batch):
        losses += _negative_log_likelihoods(language_model.model, measured[start : start + batch])
    predicted = [len(text) - 1 for text in measured]
    mean = ratio_figure(losses, predicted)
    if not isfinite(mean.value) or mean.value > MAX_NATS:
        raise ValueError(f"the language model {language_model.name!r} gives logits that are not finite, or nearly")
    value = exp(mean.value)
    return Perplexity(Figure(value, value * mean.standard_error, mean.n), sum(predicted), left_out)


def _negative_log_likelihoods(model: "PreTrainedModel", texts: Sequence[Sequence[int]]) -> list[float]:
    """Of each text, the sum over its predicted tokens, in nats."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(text) for text in texts]
    ids = pad_sequence(rows, batch_first=True).to(model.device)  # [B, L]
    is_text = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(model.device)  # [B, L]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=is_text, use_cache=False).logits[:, :-1].float()  # [B, L-1, V]
        said = logits.gather(2, ids[:, 1:, None]).squeeze(2)  # [B, L-1]
        losses = (logits.logsumexp(dim=2) - said).double()  # [B, L-1]
    return torch.where(is_text[:, 1:].bool(), losses, 0.0).sum(dim=1).tolist()


def _is_causal(model: "PreTrainedModel") -> bool:
    """Whether another last token leaves the logits before it as they are; BERT's change, though it loads."""
    import torch

    with torch.no_grad():
        ids = torch.tensor([[0, 0, 0], [0, 0, 1]], device=model.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits  # [2, 3, V]
    return torch.allclose(logits[0, :2], logits[1, :2], rtol=1e-4, atol=1e-4, equal_nan=True)


def _first_sentence(error: Exception) -> str:
    """What an error says before it gives advice, on one line."""
    return re.split(r"(?<=[.!?]) ", " ".join(str(error).split()), maxsplit=1)[0].rstrip(".")
