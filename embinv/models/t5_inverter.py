"""A T5 that reads an embedding in place of a text: the inverter of the vec2text family.

An embedding becomes R pseudo-tokens, which T5's encoder reads, and its decoder writes the text from left to right
(Morris et al., 2023, "Text Embeddings Reveal (Almost) As Much As Text", section 4). Names of weights are those of the
published checkpoints; the token embedding is kept once, and the encoder's, the decoder's and a tied head's are it.

Shapes: B batch, L length, D embedding, R pseudo-tokens, H hidden, V vocabulary, N texts on their way.
"""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from embinv.models.inverter_model import InverterModel, require_dim, scale_to_unit_rms
from embinv.models.t5_settings import T5InverterConfig

PREFIX = "encoder_decoder."
SHARED = "encoder_decoder.shared.weight"
COPIES = ("encoder_decoder.encoder.embed_tokens.weight", "encoder_decoder.decoder.embed_tokens.weight")
HEAD = "encoder_decoder.lm_head.weight"


class T5Inverter(InverterModel[T5InverterConfig]):
    """Embedding [B, D] in, text out.

    Args:
        config: the complete architecture.

    Attributes:
        embedding_transform: D -> D -> R x H.
        encoder_decoder: the T5.
        copies: names of the weights that are the token embedding.
    """

    asked_share: ClassVar = 1.0

    def __init__(self, config: T5InverterConfig) -> None:
        super().__init__()
        self.config = config
        shape, dim = config.transformer, config.embedding_dim
        self.embedding_transform = nn.Sequential(
            nn.Linear(dim, dim),
            nn.Dropout(config.dropout),
            nn.GELU(),
            nn.Linear(dim, config.pseudo_tokens * shape.d_model),
        )
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

    def pseudo_tokens(self, embedding: Tensor) -> Tensor:
        """What the encoder reads [B, R, H] in place of the text's tokens.

        Raises:
            ValueError: D is not the model's.
        """
        require_dim(embedding, self.config.embedding_dim)
        vector = scale_to_unit_rms(embedding) if self.config.unit_rms else embedding.float()
        vector = vector.to(next(self.embedding_transform.parameters()).dtype)
        return self.embedding_transform(vector).view(len(vector), self.config.pseudo_tokens, -1)

    def hidden_states(self, token_ids: Tensor, embedding: Tensor) -> Tensor:
        """The decoder's states [B, L, H] before each token of a text, which see the vector and the tokens before it.

        Args:
            token_ids: [B, L] int64; EOS, then PAD behind the text.
            embedding: [B, D].
        """
        t5 = self.encoder_decoder
        read = t5.encoder(inputs_embeds=self.pseudo_tokens(embedding)).last_hidden_state
        states = t5.decoder(
            input_ids=self._shifted(token_ids), encoder_hidden_states=read, use_cache=False
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

    def begin(self, embedding: Tensor) -> "T5Writing":
        """A text for each vector [B, D], to be written token by token."""
        states = self.encoder_decoder.encoder(inputs_embeds=self.pseudo_tokens(embedding)).last_hidden_state
        return T5Writing(self.encoder_decoder, states, self.config.vocab_size)

    def _shifted(self, token_ids: Tensor) -> Tensor:
        """What the decoder reads: the start, then all tokens but the last."""
        start = torch.full_like(token_ids[:, :1], self.config.start_id)
        return torch.cat([start, token_ids[:, :-1]], dim=1)


class T5Writing:
    """Texts on their way, see `embinv.decoding.autoregressive.Writing`.

    Args:
        t5: writes.
        states: [B, R, H], what its encoder made of the vectors.
        vocab_size: V.
    """

    def __init__(self, t5: T5ForConditionalGeneration, states: Tensor, vocab_size: int) -> None:
        self._t5, self._states, self._vocab_size = t5, states, vocab_size
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def next_token(self, last: Tensor) -> Tensor:
        """Log-probabilities [N, V] float32 after the last tokens [N]."""
        said = self._t5(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._states),
            decoder_input_ids=last.unsqueeze(1),
            past_key_values=self._cache,
            use_cache=True,
        )
        return said.logits[:, -1, : self._vocab_size].float().log_softmax(dim=-1)

    def keep(self, rows: Tensor) -> None:
        """Goes on with the texts of rows [M]."""
        self._states = self._states[rows]
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
    assert isinstance(module, T5Inverter)
    for name in module.copies:
        state.pop(prefix + name, None)


def _with_copies(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The reverse, so that loading finds every name."""
    assert isinstance(module, T5Inverter)
    for name in module.copies:
        if prefix + SHARED in state:
            state.setdefault(prefix + name, state[prefix + SHARED])
