"""ConditionalMDLM: a masked diffusion language model that reads one embedding vector.

The denoiser of MDLM (Sahoo et al. 2024, section 3.2, SUBS parameterisation) without time input: masked positions
get a distribution over the vocabulary, the mask token has no logit at all, and visible positions are never
asked for. The embedding enters through AdaLN-Zero and through k pseudo-tokens before the text, each of which can be
switched off. Corruption, loss and decoding live elsewhere.

Shapes: B batch, L text length, K pseudo-tokens, D embedding, H hidden, V vocabulary (the mask id is V itself).
"""

import torch
from torch import Tensor, nn

from embinv.models.adaln import ConditionedBlock, ConditionedNorm, rotary_table, zero_initialise
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.settings import MDLMConfig


class ConditionalMDLM(MaskedDenoiser[MDLMConfig]):
    """x_0-prediction from a masked text z_t [B, L] and an embedding [B, D]."""

    rotary_cosine: Tensor
    rotary_sine: Tensor

    def __init__(self, config: MDLMConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        # --- the text
        self.token_embedding = nn.Embedding(c.vocab_size + 1, c.hidden)  # the last row is the mask
        self.position_embedding = None if c.rope else nn.Parameter(torch.empty(c.pseudo_tokens + c.seq_len, c.hidden))
        # --- the condition
        self.take_embeddings(c)
        # --- the blocks
        self.blocks = nn.ModuleList(
            ConditionedBlock(c.hidden, c.heads, c.ffn, c.qk_norm, c.adaln, c.dropout) for _ in range(c.layers)
        )
        self.final_norm = ConditionedNorm(c.hidden, c.adaln)
        # --- the head
        self.head_weight = None if c.tied_head else nn.Parameter(torch.empty(c.vocab_size, c.hidden))
        self.head_bias = nn.Parameter(torch.zeros(c.vocab_size))
        cosine, sine = rotary_table(c.pseudo_tokens + c.seq_len, c.hidden // c.heads)
        self.register_buffer("rotary_cosine", cosine, persistent=False)
        self.register_buffer("rotary_sine", sine, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Small normal weights, then the zeros of AdaLN-Zero; the only place where weights are set."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for parameter in (self.position_embedding, self.head_weight):
            if parameter is not None:
                nn.init.normal_(parameter, std=0.02)
        if self.pseudo_tokens is not None:
            nn.init.normal_(self.pseudo_tokens.weight, std=0.02)
        nn.init.zeros_(self.head_bias)
        zero_initialise(self)

    def hidden_states(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        """Encodes a masked text z_t [B, L] int64 under embedding [B, D]; returns [B, L, H]."""
        c = self.config
        x, condition = self.enter(self.token_embedding(z_t), embedding)  # [B, K + L, H], [B, H]
        length = x.shape[1]
        rotary = (self.rotary_cosine[:length], self.rotary_sine[:length]) if c.rope else None
        if self.position_embedding is not None:
            x = x + self.position_embedding[:length]
        for block in self.blocks:
            x = self.run_block(block, x, condition, rotary)
        return self.final_norm(x, condition)[:, length - z_t.shape[1] :]  # [B, L, H]
