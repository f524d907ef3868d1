"""Transformer blocks modulated by a condition: AdaLN-Zero (Peebles & Xie 2023, "DiT", section 3.2).

Each block normalises without learned scale; shift, scale and gate of both branches are a linear map of the
condition, zero at the start, so that a new block is the identity. Attention is bidirectional, with rotary
positions (Su et al. 2021) and RMS-normalised queries and keys (Dehghani et al. 2023), without biases.
Nothing here knows tokens, masks or embeddings of texts.

Shapes: B batch, S sequence (pseudo-tokens and text), H hidden, N heads, P head width = H / N.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rotary_table(positions: int, head_width: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine [positions, head_width / 2] of the rotary angles, float32."""
    frequency = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates pairs (x_i, x_{i + P/2}) of x [B, N, S, P] by the angles of their positions [S, P/2]."""
    first, second = x.chunk(2, dim=-1)  # [B, N, S, P/2] each
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Applies shift and scale [B, H] to x [B, S, H]."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over [B, N, S, P].

    On a CPU it is written out: at these lengths the fused kernel's backward takes six times as long in bfloat16 and
    gains nothing in float32 (docs/LOG.md).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    score = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # [B, N, S, S]
    return score.softmax(dim=-1).to(value.dtype) @ value


class RMSNorm(nn.RMSNorm):
    """RMSNorm whose learned scale takes the input's dtype, so that autocast keeps the fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class Attention(nn.Module):
    """Bidirectional multi-head attention with rotary positions and QK-norm, each switchable to measure it."""

    def __init__(self, hidden: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        width = hidden // heads
        self.query_norm = RMSNorm(width) if qk_norm else nn.Identity()
        self.key_norm = RMSNorm(width) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, length, hidden = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)  # [B, N, S, P]

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        query, key = self.query_norm(query), self.key_norm(key)
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value)  # [B, N, S, P]
        return self.output(mixed.transpose(1, 2).reshape(batch, length, hidden))  # [B, S, H]


class FeedForward(nn.Module):
    """Linear, GELU, Linear, without biases."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # [B, S, H]


class ConditionedBlock(nn.Module):
    """One pre-norm transformer block; its two branches are shifted, scaled and gated by the condition.

    With `adaln=False` the condition is not read, norms are learned and branches are added as they are; their
    output maps start at zero, so that a new block is the identity either way.
    """

    def __init__(self, hidden: int, heads: int, ffn: int, qk_norm: bool, adaln: bool, dropout: float) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(hidden, elementwise_affine=not adaln)
        self.attention = Attention(hidden, heads, qk_norm)
        self.norm_feed_forward = RMSNorm(hidden, elementwise_affine=not adaln)
        self.feed_forward = FeedForward(hidden, ffn)
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(hidden, 6 * hidden) if adaln else None

    def forward(self, x: Tensor, condition: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """x [B, S, H] and condition [B, H], null without AdaLN -> [B, S, H]."""
        if self.modulation is None:
            x = x + self.dropout(self.attention(self.norm_attention(x), rotary))
            return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, dim=-1)  # [B, H]
        attended = self.attention(modulate(self.norm_attention(x), shift_a, scale_a), rotary)
        x = x + gate_a.unsqueeze(1) * self.dropout(attended)
        transformed = self.feed_forward(modulate(self.norm_feed_forward(x), shift_f, scale_f))
        return x + gate_f.unsqueeze(1) * self.dropout(transformed)


class ConditionedNorm(nn.Module):
    """The last norm before the head, shifted and scaled by the condition (DiT's final layer)."""

    def __init__(self, hidden: int, adaln: bool) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden, elementwise_affine=not adaln)
        self.modulation = nn.Linear(hidden, 2 * hidden) if adaln else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.modulation is None:
            return self.norm(x)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return modulate(self.norm(x), shift, scale)  # [B, S, H]


def zero_initialise(block: nn.Module) -> None:
    """Sets every zero of AdaLN-Zero at once: modulations, and the branch outputs of blocks without one."""
    for module in block.modules():
        if isinstance(module, (ConditionedBlock, ConditionedNorm)) and module.modulation is not None:
            nn.init.zeros_(module.modulation.weight)
            nn.init.zeros_(module.modulation.bias)
        elif isinstance(module, ConditionedBlock):
            nn.init.zeros_(module.attention.output.weight)
            nn.init.zeros_(module.feed_forward.down.weight)
