"""adaln.py's blocks for inference in bfloat16 on a CPU: the same arithmetic, with half the work around the products.

Matrices are kept in the order in which oneDNN multiplies, with bias and GELU made along with the product. What stands
between two products is computed in float32, in place where it can be, and rounded once, for the next product.

Shapes: B batch, S sequence, H hidden, N heads, P head width, I and O inputs and outputs of a map.
"""

import torch
from torch import Tensor, nn

from embinv.models.adaln import Attention, ConditionedBlock, FeedForward, RMSNorm


def packs(device: torch.device) -> bool:
    """Whether oneDNN multiplies in bfloat16 here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, for the next tensor; elsewhere it does nothing.

    It returns what exceeds twice the largest block that was ever freed, of 32 MB at most; a page that comes anew costs
    more than the numbers that are written on it. This block is never written on, and costs nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class PackedLinear(nn.Module):
    """A linear map with its matrix [O, I] in oneDNN's order; takes bfloat16 or float32, gives bfloat16.

    The operators are those that a compiled `nn.Linear` becomes. One row takes half the time that it takes in
    `F.linear`, thousands 5% less; the results are the same, bit for bit.
    """

    matrix: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> None:
        super().__init__()
        self.then = ("gelu", [], "tanh") if gelu else ("none", [], "")
        matrix = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16))
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(torch.bfloat16), self.matrix, self.bias, *self.then)


def pack(linear: nn.Linear) -> PackedLinear:
    """The same map, packed."""
    return PackedLinear(linear.weight, linear.bias)


def inverse_rms(x: Tensor, eps: float | None) -> Tensor:
    """What RMSNorm multiplies the rows of x [..., H] float32 by, [..., 1]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(torch.finfo(x.dtype).eps if eps is None else eps).rsqrt_()


def normalise(x: Tensor, norm: RMSNorm) -> Tensor:
    """RMSNorm of x [..., H] float32, as a new tensor."""
    normal = x * inverse_rms(x, norm.eps)
    return normal if norm.weight is None else normal.mul_(norm.weight)


def rotate_(x: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """`adaln.rotate` in place, for x [B, S, ..., N, P]; angles [S, P/2]."""
    shape = (len(cosine), *[1] * (x.ndim - 3), cosine.shape[1])
    cosine, sine = cosine.view(shape), sine.view(shape)  # [S, ..., 1, P/2]
    first, second = x.chunk(2, dim=-1)  # [B, S, ..., N, P/2] each
    crossed = first * sine
    first.mul_(cosine).addcmul_(second, sine, value=-1)
    second.mul_(cosine).add_(crossed)


class PackedAttention(nn.Module):
    """`Attention` with one product for queries, keys and values."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.maps = PackedLinear(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        self.output = pack(attention.output)
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """x [B, S, H] -> [B, S, H] bfloat16."""
        batch, length, hidden = x.shape
        width = hidden // self.heads
        mapped = self.maps(x).view(batch, length, 3, self.heads, width)  # [B, S, 3, N, P]
        pair = mapped[:, :, :2].float()  # [B, S, 2, N, P]: queries and keys
        if isinstance(self.query_norm, RMSNorm) and isinstance(self.key_norm, RMSNorm):
            pair.mul_(inverse_rms(pair, self.query_norm.eps))
            pair.mul_(torch.stack([self.query_norm.weight, self.key_norm.weight]).unsqueeze(1))  # by [2, 1, P]
        if rotary is not None:
            rotate_(pair, *rotary)
        pair[:, :, 0].mul_(width**-0.5)
        query, key = pair.new_empty((2, batch, self.heads, length, width), dtype=torch.bfloat16).copy_(
            pair.permute(2, 0, 3, 1, 4)
        )  # [B, N, S, P] each
        score = (query @ key.transpose(-2, -1)).float().softmax(dim=-1)  # [B, N, S, S]
        mixed = score.to(torch.bfloat16) @ mapped[:, :, 2].transpose(1, 2)  # [B, N, S, P]
        return self.output(mixed.transpose(1, 2).reshape(batch, length, hidden))


class PackedFeedForward(nn.Module):
    """`FeedForward` with its GELU made along with the first product."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        self.up = PackedLinear(feed_forward.up.weight, gelu=True)
        self.down = pack(feed_forward.down)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, H] -> [B, S, H] bfloat16."""
        return self.down(self.up(x))


class PackedBlock(nn.Module):
    """`ConditionedBlock` without dropout."""

    def __init__(self, block: ConditionedBlock) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = block.norm_attention, block.norm_feed_forward
        self.attention = PackedAttention(block.attention)
        self.feed_forward = PackedFeedForward(block.feed_forward)
        self.modulation = None if block.modulation is None else pack(block.modulation)

    def forward(self, x: Tensor, condition: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """x [B, S, H] float32 and condition [B, H], null without AdaLN -> [B, S, H] float32."""
        if self.modulation is None:
            x = x + self.attention(normalise(x, self.norm_attention), rotary)
            return x + self.feed_forward(normalise(x, self.norm_feed_forward))
        modulation = self.modulation(condition).float().unsqueeze(1)  # [B, 1, 6 H]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.chunk(6, dim=-1)  # [B, 1, H] each
        seen = normalise(x, self.norm_attention).mul_(1 + scale_a).add_(shift_a)
        x = torch.addcmul(x, gate_a, self.attention(seen, rotary).float())
        seen = normalise(x, self.norm_feed_forward).mul_(1 + scale_f).add_(shift_f)
        return torch.addcmul(x, gate_f, self.feed_forward(seen).float())
