"""A pretrained ModernBERT as denoiser: AdaLN-Zero around its layers, so that it starts as what it was.

ModernBERT (Warner et al. 2024) and mmBERT (Marone et al. 2025) are one architecture: pre-norm layers with rotary
positions, every third over the whole text and the others over a window, and a masked language model's head. Each
branch is shifted, scaled and gated by the condition as in adaln.py, with one difference: the gate is added to 1. At
the start all modulations are zero and the logits are the backbone's own, for any embedding. Pseudo-tokens before the
text can be had too; the start then is near the backbone's, but not the same. The backbone's dropouts are replaced by
one on each branch's output. Where the weights come from is said in pretrained.py.

Shapes: B batch, L text length, K pseudo-tokens, S = K + L, D embedding, H hidden, P head width, V vocabulary (the mask
id is V itself).
"""

import torch
from torch import Tensor, nn
from transformers.models.modernbert.configuration_modernbert import ModernBertConfig
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertEncoderLayer,
    ModernBertPredictionHead,
    ModernBertRotaryEmbedding,
)

from embinv.models.adaln import modulate
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.settings import BackboneConfig, TransformerShape

LOCAL = "sliding_attention"


def modernbert_config(shape: TransformerShape, vocab_size: int) -> ModernBertConfig:
    """The shape as transformers writes it, for a vocabulary of ours and without dropouts."""
    config = ModernBertConfig(**shape.model_dump(mode="json"), vocab_size=vocab_size, pad_token_id=None)
    config._attn_implementation = "sdpa"
    return config


class BackboneBlock(nn.Module):
    """One layer of the backbone, its two branches shifted, scaled and gated by the condition."""

    def __init__(self, layer: ModernBertEncoderLayer, hidden: int, adaln: bool, dropout: float) -> None:
        super().__init__()
        self.layer = layer
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(hidden, 6 * hidden) if adaln else None

    def forward(
        self, x: Tensor, condition: Tensor | None, rotary: tuple[Tensor, Tensor], window: Tensor | None
    ) -> Tensor:
        """x [B, S, H], condition [B, H], angles [1, S, P] and who sees whom [S, S] -> [B, S, H]."""
        layer = self.layer
        if self.modulation is None:
            attended, _ = layer.attn(layer.attn_norm(x), position_embeddings=rotary, attention_mask=window)
            x = x + self.dropout(attended)
            return x + self.dropout(layer.mlp(layer.mlp_norm(x)))
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, dim=-1)  # [B, H]
        seen = modulate(layer.attn_norm(x), shift_a, scale_a)
        attended, _ = layer.attn(seen, position_embeddings=rotary, attention_mask=window)
        x = x + (1 + gate_a).unsqueeze(1) * self.dropout(attended)
        transformed = layer.mlp(modulate(layer.mlp_norm(x), shift_f, scale_f))
        return x + (1 + gate_f).unsqueeze(1) * self.dropout(transformed)


class BackboneDenoiser(MaskedDenoiser[BackboneConfig]):
    """x_0-prediction from a masked text z_t [B, L] and an embedding [B, D]; new weights mean nothing yet."""

    window: Tensor | None

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        c, hidden = config, config.hidden
        shape = modernbert_config(c.transformer, c.vocab_size + 1)
        # --- the text
        self.token_embedding = nn.Embedding(c.vocab_size + 1, hidden)  # the last row is the mask
        self.embedding_norm = nn.LayerNorm(hidden, eps=c.transformer.norm_eps, bias=c.transformer.norm_bias)
        # --- the condition
        self.take_embeddings(c)
        # --- the blocks
        layers = (ModernBertEncoderLayer(shape, index) for index in range(c.layers))
        self.blocks = nn.ModuleList(BackboneBlock(layer, hidden, c.adaln, c.dropout) for layer in layers)
        self.final_norm = nn.LayerNorm(hidden, eps=c.transformer.norm_eps, bias=c.transformer.norm_bias)
        self.final_modulation = nn.Linear(hidden, 2 * hidden) if c.adaln else None
        # --- the head
        self.prediction = ModernBertPredictionHead(shape)
        tied = c.transformer.tie_word_embeddings
        self.head_weight = None if tied else nn.Parameter(torch.empty(c.vocab_size, hidden))
        self.head_bias = nn.Parameter(torch.zeros(c.vocab_size))
        self._fix_positions(shape)
        self.initialise()

    def _fix_positions(self, shape: ModernBertConfig) -> None:
        """Angles of every position for each kind of layer, and the window of the local ones."""
        length = self.config.pseudo_tokens + self.config.seq_len
        positions = torch.arange(length)
        rotary = ModernBertRotaryEmbedding(shape)
        for kind in sorted(set(self.config.transformer.layer_types)):
            angles = rotary(torch.zeros(1), positions.unsqueeze(0), kind)  # cosine and sine, [1, S, P] each
            self.register_buffer(f"rotary_{kind}", torch.stack(angles), persistent=False)
        near = (positions.unsqueeze(0) - positions.unsqueeze(1)).abs() <= shape.sliding_window  # [S, S]
        self.register_buffer("window", None if length - 1 <= shape.sliding_window else near, persistent=False)

    def initialise(self) -> None:
        """Sets what a backbone does not bring: the condition's maps, and every zero of AdaLN-Zero at once."""
        for module in self.condition or ():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        if self.pseudo_tokens is not None:
            nn.init.normal_(self.pseudo_tokens.weight, std=0.02)
            nn.init.zeros_(self.pseudo_tokens.bias)
        for name, module in self.named_modules():
            if name.endswith("modulation") and isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)

    def hidden_states(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        """Encodes a masked text z_t [B, L] int64 under embedding [B, D]; returns [B, L, H]."""
        c = self.config
        x, condition = self.enter(self.embedding_norm(self.token_embedding(z_t)), embedding)  # [B, S, H], [B, H]
        length = x.shape[1]
        local = None if self.window is None else self.window[:length, :length]
        for kind, block in zip(c.transformer.layer_types, self.blocks, strict=True):
            cosine, sine = self.get_buffer(f"rotary_{kind}")[:, :, :length]  # [1, S, P] each
            x = self.run_block(block, x, condition, (cosine, sine), local if kind == LOCAL else None)
        x = self.final_norm(x)
        if self.final_modulation is not None:
            x = modulate(x, *self.final_modulation(condition).chunk(2, dim=-1))
        return self.prediction(x[:, length - z_t.shape[1] :])  # [B, L, H]
