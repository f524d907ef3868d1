"""Which optimizer moves which weight: Muon for hidden matrices, AdamW for the rest, or AdamW alone.

Weight decay is on hidden matrices only: never on embeddings, biases and norms.
"""

from typing import Any

import torch
from torch import nn

from embinv.training.muon import Muon
from embinv.training.settings import TrainingSettings

SCRATCH, BACKBONE = (".attention.", ".feed_forward."), (".attn.", ".mlp.")
T5 = (".SelfAttention.", ".EncDecAttention.", ".DenseReluDense.")
BRANCHES = (*SCRATCH, *BACKBONE, *T5)
TABLES = (".relative_attention_bias.",)  # two-dimensional, but looked up and not multiplied with


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters as (hidden matrices, everything else).

    Hidden matrices are those of the blocks' two branches. Modulations and the maps of the embedding are read once a
    text, not once a token, and orthogonalising them costs as much as all branches together (docs/LOG.md).
    """
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        hidden_matrix = parameter.ndim == 2 and any(branch in name for branch in BRANCHES)
        hidden_matrix = hidden_matrix and not any(table in name for table in TABLES)
        (matrices if hidden_matrix else others).append(parameter)
    return matrices, others


def build_optimizer(model: nn.Module, settings: TrainingSettings, shared: bool = False) -> torch.optim.Optimizer:
    """Makes the optimizer that the settings name; each group keeps its full rate as `initial_lr`.

    Args:
        model: whose weights move.
        settings: the optimizer, its rates and its decay.
        shared: the workers of torch.distributed's default group hold the same weights and gradients, and share Muon's
            products out.
    """
    matrices, others = split_parameters(model)
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    if settings.optimizer == "muon":
        muon = Muon(matrices, lr=settings.muon_learning_rate, weight_decay=decay, shared=shared)
        adamw = torch.optim.AdamW(others, lr=settings.learning_rate, betas=betas, weight_decay=0.0)
        optimizer: torch.optim.Optimizer = MuonWithAdamW(muon, adamw)
    else:
        groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to factor x its full rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step together and are saved together."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW) -> None:
        self.members = {"muon": muon, "adamw": adamw}
        super().__init__([group for member in self.members.values() for group in member.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Makes a rate set here the members' rate; loading a state gives the members new groups."""
        self.param_groups = [group for member in self.members.values() for group in member.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Steps both members."""
        assert closure is None, "closures are not used here"
        for member in self.members.values():
            member.step()

    def state_dict(self) -> dict[str, Any]:
        """The members' states by name."""
        return {name: member.state_dict() for name, member in self.members.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both members."""
        for name, member in self.members.items():
            member.load_state_dict(state_dict[name])
        self._share_groups()
