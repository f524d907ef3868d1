"""What the recipe is compared with and is no setting of the product: the reference's mask, AdaLN without gates, and
self-conditioning.

Shapes: B batch, L length, K pseudo-tokens, D embedding, H hidden, V vocabulary, M hidden positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.reference import hide_a_tenth
from embinv.decoding.base import Denoiser
from embinv.models.adaln import ConditionedBlock, modulate
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import MDLMConfig
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds, training_loss

Objective = Callable[[Engine, Tensor, Tensor, TokenIds, TrainingSettings, torch.Generator], Tensor]
"""(engine, x_0 [B, L], embedding [B, D], ids, settings, generator) -> the loss of one batch, a scalar."""


def product_objective(
    engine: Engine,
    x_0: Tensor,
    embedding: Tensor,
    ids: TokenIds,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> Tensor:
    """What the product trains on."""
    return training_loss(engine, x_0, embedding, ids, settings, generator).loss


def reference_objective(
    engine: Engine,
    x_0: Tensor,
    embedding: Tensor,
    ids: TokenIds,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> Tensor:
    """The reference's: a tenth of the content tokens is hidden, EOS and PAD never are; mean cross-entropy of those."""
    z_t, hidden = hide_a_tenth(x_0, (ids.eos_id, ids.pad_id), ids.mask_id, generator)
    targets = x_0[hidden]  # [M]
    weights = torch.full(targets.shape, 1.0 / max(1, len(targets)), device=x_0.device)
    loss, _ = engine.loss(z_t, embedding, hidden, targets, weights)
    return loss


class UngatedBlock(ConditionedBlock):
    """A block whose branches are shifted and scaled by the condition and then added as they are."""

    def __init__(self, config: MDLMConfig) -> None:
        c = config
        super().__init__(c.hidden, c.heads, c.ffn, c.qk_norm, adaln=True, dropout=c.dropout)
        self.modulation = nn.Linear(c.hidden, 4 * c.hidden)

    def forward(self, x: Tensor, condition: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        assert self.modulation is not None
        shift_a, scale_a, shift_f, scale_f = self.modulation(condition).chunk(4, dim=-1)  # [B, H]
        x = x + self.dropout(self.attention(modulate(self.norm_attention(x), shift_a, scale_a), rotary))
        return x + self.dropout(self.feed_forward(modulate(self.norm_feed_forward(x), shift_f, scale_f)))


class UngatedMDLM(ConditionalMDLM):
    """The product's model with AdaLN without gates."""

    def __init__(self, config: MDLMConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(UngatedBlock(config) for _ in range(config.layers))
        self.initialise()


class SelfConditionedMDLM(ConditionalMDLM):
    """Reads its own previous prediction at the hidden positions (Chen et al. 2022, "Analog Bits", section 3.2).

    The prediction is the mean token embedding under the predicted distribution. In training, half of the steps make a
    first pass without gradient and read what it predicted; the others read nothing.
    """

    def __init__(self, config: MDLMConfig) -> None:
        super().__init__(config)
        self.feedback = nn.Linear(config.hidden, config.hidden, bias=False)
        nn.init.zeros_(self.feedback.weight)

    def hidden_states(self, z_t: Tensor, embedding: Tensor, previous: Tensor | None = None) -> Tensor:
        """As the product's; `previous` [B, L, H] is added to the token embeddings after a linear map."""
        if previous is None and self.training and float(torch.rand(())) < 0.5:
            previous = self._first_pass(z_t, embedding)
        if previous is None:
            return super().hidden_states(z_t, embedding)
        fed_back = self.feedback(previous)  # [B, L, H]
        hook = self.token_embedding.register_forward_hook(lambda _module, _inputs, x: x + fed_back)
        try:
            return super().hidden_states(z_t, embedding)
        finally:
            hook.remove()

    def expected_embedding(self, log_probability: Tensor, positions: Tensor) -> Tensor:
        """Mean token embeddings [B, L, H] under log-probabilities [M, V] at positions [B, L] bool, 0 elsewhere."""
        table = self.token_embedding.weight[: self.config.vocab_size]
        expected = log_probability.exp() @ table  # [M, H]
        filled = torch.zeros(*positions.shape, table.shape[1], dtype=expected.dtype, device=expected.device)
        filled[positions] = expected
        return filled

    def _first_pass(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        device, hidden = z_t.device.type, z_t == self.config.mask_id
        # Autocast would keep the weights that are cast here, without a gradient, for the pass that needs one.
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device)
        with torch.no_grad(), torch.autocast(device, dtype, enabled=mixed, cache_enabled=False):
            states = super().hidden_states(z_t, embedding)[hidden]  # [M, H]
            return self.expected_embedding(F.log_softmax(self.logits(states).float(), dim=-1), hidden)


class SelfConditionedDenoiser:
    """Decodes one batch with a `SelfConditionedMDLM`: keeps the prediction of each pass for the next one."""

    def __init__(self, model: SelfConditionedMDLM) -> None:
        self.model = model
        self.previous: Tensor | None = None

    def __call__(self, z_t: Tensor, embedding: Tensor, positions: Tensor | None = None, /) -> Tensor:
        assert positions is not None, "decoders ask for the hidden positions, and those are remembered"
        hidden = (z_t == self.model.config.mask_id).unsqueeze(-1)
        previous = None if self.previous is None else self.previous * hidden
        states = self.model.hidden_states(z_t, embedding, previous)
        log_probability = F.log_softmax(self.model.logits(states[positions]).float(), dim=-1)  # [M, V]
        self.previous = self.model.expected_embedding(log_probability, positions)
        return log_probability


def decode_as_it_is(model: nn.Module) -> Denoiser:
    """The denoiser of one generation: the model itself."""
    return model


def decode_with_memory(model: nn.Module) -> Denoiser:
    """The denoiser of one generation: the model with what it predicted in the pass before."""
    assert isinstance(model, SelfConditionedMDLM)
    return SelfConditionedDenoiser(model)
