"""The opponent: the recipe of conditional masked diffusion as it was published (arXiv 2602.11047 and its demo),
written anew from a description of what it does, as a plain loop.

What sets it apart from ours: every sample hides a tenth of its tokens, EOS and PAD are never hidden and so never
learnt; AdaLN shifts and scales but gates nothing; no pseudo-tokens; learned positions; the head runs over all
positions, in chunks of rows; one AdamW for all parameters, decay included; a cosine; an average of 0.9999. Where the
description is silent it gets what serves it: a tied head, vectors at unit RMS, an average kept in float32, a
rate that suits its width.

Shapes: B batch, L length, D embedding, H hidden, N heads, V vocabulary, M asked positions.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embinv.data.pairs import Pairs, batch_rows
from embinv.models.adaln import modulate
from embinv.models.inverter_model import scale_to_unit_rms
from embinv.models.settings import MDLMConfig
from embinv.training.lr_schedule import cosine
from embinv.training.step import step_generator, to_tensors

HIDDEN_SHARE = 0.1
HEAD_ROWS = 256


@dataclass(frozen=True)
class ReferenceRecipe:
    """How it is trained; what the description leaves open has a default that suits small models."""

    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.02
    ema_decay: float = 0.9999
    seed: int = 0


class PlainBlock(nn.Module):
    """A pre-norm transformer block, shifted and scaled by a condition, with biases and without gates."""

    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(hidden, elementwise_affine=False)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.norm_feed_forward = nn.LayerNorm(hidden, elementwise_affine=False)
        self.feed_forward = nn.Sequential(nn.Linear(hidden, ffn), nn.GELU(), nn.Linear(ffn, hidden))
        self.modulation = nn.Linear(hidden, 4 * hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B, L, H] and condition [B, H] -> [B, L, H]."""
        batch, length, hidden = x.shape
        shift_a, scale_a, shift_f, scale_f = self.modulation(condition).chunk(4, dim=-1)  # [B, H]
        mixed = self.query_key_value(modulate(self.norm_attention(x), shift_a, scale_a))  # [B, L, 3H]
        query, key, value = mixed.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [B, N, L, H/N]
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        x = x + self.output(attended.reshape(batch, length, hidden))
        return x + self.feed_forward(modulate(self.norm_feed_forward(x), shift_f, scale_f))


class ReferenceModel(nn.Module):
    """A `Denoiser`, so that the same code decodes it; it takes widths and vocabulary of `config`, but not its switches.

    It never saw a hidden EOS or PAD: what it writes behind the end of a text means nothing.
    """

    def __init__(self, config: MDLMConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.token_embedding = nn.Embedding(c.vocab_size + 1, c.hidden)  # the last row is the mask
        self.position_embedding = nn.Embedding(c.seq_len, c.hidden)
        self.condition = nn.Sequential(nn.Linear(c.embedding_dim, c.hidden), nn.SiLU(), nn.Linear(c.hidden, c.hidden))
        self.blocks = nn.ModuleList(PlainBlock(c.hidden, c.heads, c.ffn) for _ in range(c.layers))
        self.final_norm = nn.LayerNorm(c.hidden)
        self.head_bias = nn.Parameter(torch.zeros(c.vocab_size))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def hidden_states(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        """A masked text z_t [B, L] under embedding [B, D]; returns [B, L, H]."""
        condition = self.condition(scale_to_unit_rms(embedding))  # [B, H]
        x = self.token_embedding(z_t) + self.position_embedding.weight[: z_t.shape[1]]
        for block in self.blocks:
            x = block(x, condition)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """The tied head on hidden states [..., H]; returns [..., V]."""
        return F.linear(hidden, self.token_embedding.weight[:-1], self.head_bias)

    def forward(self, z_t: Tensor, embedding: Tensor, positions: Tensor | None = None) -> Tensor:
        """Log-probabilities [M, V] in row-major order of the asked positions, or [B, L, V]."""
        hidden = self.hidden_states(z_t, embedding)
        return F.log_softmax(self.logits(hidden if positions is None else hidden[positions]).float(), dim=-1)

    def loss(self, z_t: Tensor, embedding: Tensor, x_0: Tensor, hidden: Tensor) -> Tensor:
        """Mean cross-entropy of the hidden tokens x 1 / ratio, with the head at every position."""
        states = self.hidden_states(z_t, embedding).flatten(0, 1)  # [B x L, H]
        targets, counted = x_0.flatten(), hidden.flatten()
        total = states.new_zeros((), dtype=torch.float32)
        for start in range(0, len(states), HEAD_ROWS):
            rows = slice(start, start + HEAD_ROWS)
            entropies = F.cross_entropy(self.logits(states[rows]).float(), targets[rows], reduction="none")
            total = total + (entropies * counted[rows]).sum()
        return total / counted.sum().clamp_min(1) / HIDDEN_SHARE


def hide_a_tenth(
    x_0: Tensor, end_ids: Sequence[int], mask_id: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z_t [B, L] and what is hidden in it [B, L] bool: each content token with 10%, EOS and PAD never."""
    content = ~torch.isin(x_0, torch.tensor(list(end_ids), device=x_0.device))
    drawn = torch.rand(x_0.shape, generator=generator) < HIDDEN_SHARE
    hidden = drawn.to(x_0.device) & content
    return torch.where(hidden, torch.full_like(x_0, mask_id), x_0), hidden


class ReferenceLoop:
    """Model, optimizer and average, and one step of them: float32 on a CPU, bfloat16 autocast with GradScaler on a GPU.

    Args:
        config: widths, vocabulary and L.
        end_ids: EOS and PAD.
        recipe: rates and the like.
        device: `cpu` or `cuda`.
    """

    def __init__(
        self, config: MDLMConfig, end_ids: Sequence[int], recipe: ReferenceRecipe, device: str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.end_ids, self.recipe = tuple(end_ids), recipe
        torch.manual_seed(recipe.seed)
        self.model = ReferenceModel(config).to(self.device)
        self.average = copy.deepcopy(self.model).float().eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.mixed = self.device.type == "cuda"
        self.precision = "bfloat16-mixed" if self.mixed else "float32"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed)

    def step(self, x_0: Tensor, embedding: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """One step at `share` of the run; returns the loss without gradient.

        Args:
            x_0: [B, L] int64.
            embedding: [B, D] float.
            share: of the run that is done, in [0, 1].
            generator: decides what is hidden; on the CPU.
        """
        z_t, hidden = hide_a_tenth(x_0, self.end_ids, self.model.config.mask_id, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * cosine(share, self.recipe.warmup, 0.0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            loss = self.model.loss(z_t, embedding, x_0, hidden)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._follow()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average; a copy of every weight, each step."""
        for average, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(value.float(), 1.0 - self.recipe.ema_decay)


def train_reference(loop: ReferenceLoop, pairs: Pairs, minutes: float) -> Iterator[tuple[int, float]]:
    """Trains for so long; yields steps made and seconds taken after each step, pauses of the reader not counted.

    Raises:
        ValueError: the pairs do not fill one batch.
    """
    step, seconds = 0, 0.0
    while seconds < 60.0 * minutes:
        began = time.monotonic()
        rows = batch_rows(len(pairs), loop.recipe.batch_size, step, loop.recipe.seed)
        x_0, embedding = to_tensors(pairs, rows, loop.device)
        generator = step_generator(loop.recipe.seed, step, 0)
        loop.step(x_0, embedding, min(1.0, seconds / (60.0 * minutes)), generator)
        if loop.device.type == "cuda":
            torch.cuda.synchronize()
        step += 1
        seconds += time.monotonic() - began
        yield step, seconds
