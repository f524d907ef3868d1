"""A T5 that reads a hypothesis beside the wanted vector, and writes a better text: the corrector of vec2text.

Its encoder reads `[sep] T1(e) [sep] T3(e') [sep] T2(e - e') [sep] hypothesis`, with e the wanted vector, e' that of the
hypothesis, T1 to T3 maps to R pseudo-tokens each, and EOS for `[sep]`; a LayerNorm goes over all of it (Morris et al.,
2023, "Text Embeddings Reveal (Almost) As Much As Text", section 4 and the authors' weights, whose names these are).

Shapes: B batch, L length, D embedding, R pseudo-tokens, S = 4 + 3 R + L, H hidden.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embinv.models.evidence import parted
from embinv.models.t5_inverter import embedding_transform, transformed
from embinv.models.t5_settings import T5CorrectorConfig
from embinv.models.t5_writer import T5Writer


class T5Corrector(T5Writer[T5CorrectorConfig]):
    """`evidence` [B, 2 D] and a hypothesis [B, L] in, text out.

    Args:
        config: the complete architecture.

    Attributes:
        embedding_transform_1: of the wanted vector.
        embedding_transform_2: of the difference.
        embedding_transform_3: of the hypothesis's vector.
        layernorm: over what the encoder reads.
    """

    vectors_given: ClassVar = 2
    texts_given: ClassVar = 2

    def __init__(self, config: T5CorrectorConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_transform_1 = embedding_transform(config)
        self.embedding_transform_2 = embedding_transform(config)
        self.embedding_transform_3 = embedding_transform(config)
        self.take_t5(config)
        self.layernorm = nn.LayerNorm(config.hidden)

    def read(self, embedding: Tensor, hypothesis: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert hypothesis is not None, "a corrector reads a hypothesis"
        c, t5 = self.config, self.encoder_decoder
        wanted, difference, own = parted(embedding, c.embedding_dim, c.unit_rms)
        embed = t5.encoder.embed_tokens
        separator = embed(torch.full_like(hypothesis[:, :1], c.eos_id))  # [B, 1, H]
        parts = [
            separator,
            transformed(self.embedding_transform_1, wanted, c.pseudo_tokens),
            separator,
            transformed(self.embedding_transform_3, own, c.pseudo_tokens),
            separator,
            transformed(self.embedding_transform_2, difference, c.pseudo_tokens),
            separator,
            embed(hypothesis),
        ]
        seen = self.layernorm(torch.cat(parts, dim=1))  # [B, S, H]
        lowest = torch.finfo(seen.dtype).min
        padding = torch.zeros(hypothesis.shape, dtype=seen.dtype, device=seen.device)
        padding = padding.masked_fill(hypothesis == c.pad_id, lowest)
        # Added to scores as it is: of 0 and 1, transformers looks at every number, for which a GPU has to wait.
        mask = F.pad(padding, (seen.shape[1] - padding.shape[1], 0))[:, None, None]  # [B, 1, 1, S]
        return t5.encoder(inputs_embeds=seen, attention_mask=mask).last_hidden_state, mask

    def hidden_states(self, token_ids: Tensor, embedding: Tensor) -> Tensor:
        """The decoder's states [B, L, H] before each token of a text.

        Args:
            token_ids: [B, 2 L] int64, the hypothesis and then the text, each with EOS and then PAD behind it.
            embedding: [B, 2 D] of `evidence`.
        """
        hypothesis, text = token_ids.chunk(2, dim=1)
        return self.states(text, *self.read(embedding, hypothesis))
