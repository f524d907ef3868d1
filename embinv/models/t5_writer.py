"""A T5 whose encoder reads states that are made of vectors, and whose decoder writes the text from left to right.

What an inverter and a corrector share. Names of weights are those of vec2text's published checkpoints; the token
embedding is kept once, and the encoder's, the decoder's and a tied head's are it.

Shapes: B batch, L length, S what the encoder reads, D embedding, H hidden, V vocabulary, N texts on their way.
"""

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from embinv.models.inverter_model import InverterModel
from embinv.models.t5_settings import T5InverterConfig

PREFIX = "encoder_decoder."
SHARED = "encoder_decoder.shared.weight"
COPIES = ("encoder_decoder.encoder.embed_tokens.weight", "encoder_decoder.decoder.embed_tokens.weight")
HEAD = "encoder_decoder.lm_head.weight"

C = TypeVar("C", bound=T5InverterConfig)


class T5Writer(InverterModel[C]):
    """Writes a text; a subclass says what the encoder reads.

    Attributes:
        encoder_decoder: the T5.
        copies: names of the weights that are the token embedding.
    """

    asked_share: ClassVar = 1.0
    encoder_decoder: T5ForConditionalGeneration
    copies: tuple[str, ...]

    def take_t5(self, config: C) -> None:
        """Makes the T5; a subclass calls it where its place among the weights is."""
        self.encoder_decoder = T5ForConditionalGeneration(_transformers_config(config))
        self.tie()
        if not config.tied_head:  # transformers has made it one with the token embedding
            self.encoder_decoder.lm_head.weight = nn.Parameter(self.encoder_decoder.lm_head.weight.detach().clone())
        self.copies = (*COPIES, HEAD) if config.tied_head else COPIES
        self.register_state_dict_post_hook(_without_copies)
        self.register_load_state_dict_pre_hook(_with_copies)

    def tie(self) -> None:
        """Makes the copies of the token embedding the token embedding: loading by assignment parts them."""
        t5 = self.encoder_decoder
        tied = [t5.encoder.embed_tokens, t5.decoder.embed_tokens, *([t5.lm_head] if self.config.tied_head else [])]
        for module in tied:
            module.weight = t5.shared.weight

    @abstractmethod
    def read(self, embedding: Tensor, hypothesis: Tensor | None = None, /) -> tuple[Tensor, Tensor | None]:
        """What the encoder makes of vectors and perhaps of a hypothesis [B, L] int64.

        Returns:
            [B, S, H], and where it is to be looked at, [B, 1, 1, S] to be added to scores; null means everywhere.
        """

    def states(self, token_ids: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
        """The decoder's states [B, L, H] before each token of a text [B, L], which see `read` and the tokens before."""
        states = self.encoder_decoder.decoder(
            input_ids=self._shifted(token_ids),
            encoder_hidden_states=read,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return states * self.config.hidden**-0.5 if self.config.tied_head else states

    def head(self) -> tuple[Tensor, Tensor]:
        t5 = self.encoder_decoder
        weight = (t5.shared if self.config.tied_head else t5.lm_head).weight
        return weight, weight.new_zeros(self.config.vocab_size)  # a T5's head has no bias

    def recompute(self, on: bool) -> None:
        super().recompute(on)
        if on:
            self.encoder_decoder.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.encoder_decoder.gradient_checkpointing_disable()

    def compile_blocks(self, **options: Any) -> None:
        for block in [*self.encoder_decoder.encoder.block, *self.encoder_decoder.decoder.block]:
            block.compile(**options)

    @property
    def start_id(self) -> int:
        """What the decoder reads first."""
        return self.config.start_id

    def begin(self, embedding: Tensor, hypothesis: Tensor | None = None) -> "T5Writing":
        """A text for each row of `read`, to be written token by token."""
        return T5Writing(self.encoder_decoder, *self.read(embedding, hypothesis), self.config.vocab_size)

    def _shifted(self, token_ids: Tensor) -> Tensor:
        """What the decoder reads: the start, then all tokens but the last."""
        start = torch.full_like(token_ids[:, :1], self.config.start_id)
        return torch.cat([start, token_ids[:, :-1]], dim=1)


class T5Writing:
    """Texts on their way, see `embinv.decoding.autoregressive.Writing`.

    Args:
        t5: writes.
        states: [B, S, H], what its encoder made of what it read.
        mask: [B, 1, 1, S], where it is to be looked at; null means everywhere.
        vocab_size: V.
    """

    def __init__(self, t5: T5ForConditionalGeneration, states: Tensor, mask: Tensor | None, vocab_size: int) -> None:
        self._t5, self._states, self._mask, self._vocab_size = t5, states, mask, vocab_size
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def next_token(self, last: Tensor) -> Tensor:
        """Log-probabilities [N, V] float32 after the last tokens [N]."""
        said = self._t5(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._states),
            attention_mask=self._mask,
            decoder_input_ids=last.unsqueeze(1),
            past_key_values=self._cache,
            use_cache=True,
        )
        return said.logits[:, -1, : self._vocab_size].float().log_softmax(dim=-1)

    def keep(self, rows: Tensor) -> None:
        """Goes on with the texts of rows [M]."""
        self._states = self._states[rows]
        self._mask = None if self._mask is None else self._mask[rows]
        if self._cache.get_seq_length():
            self._cache.reorder_cache(cast(torch.LongTensor, rows))


def _transformers_config(config: T5InverterConfig) -> T5Config:
    said: dict[str, Any] = {
        "vocab_size": config.rows,
        "dropout_rate": config.dropout,
        "decoder_start_token_id": config.start_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "tie_word_embeddings": config.tied_head,  # T5 1.0 ties, and then divides by the root of H; 1.1 does neither
    }
    return T5Config(**said, **config.transformer.model_dump())


def _without_copies(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """A state dict that holds each tensor once."""
    assert isinstance(module, T5Writer)
    for name in module.copies:
        state.pop(prefix + name, None)


def _with_copies(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The reverse, so that loading finds every name."""
    assert isinstance(module, T5Writer)
    for name in module.copies:
        if prefix + SHARED in state:
            state.setdefault(prefix + name, state[prefix + SHARED])
