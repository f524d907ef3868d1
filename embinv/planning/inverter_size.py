"""How much arithmetic an inverter is, before it is trained: its weights, and FLOPs of training and of writing a text.

The model is made as training makes it, on tensors without data, and its matrix products are counted as PyTorch
dispatches them (`embinv.training.flops`). Muon's products are counted by their closed form.

Shapes: L text length, K pseudo-tokens, V vocabulary, n passes.
"""

from dataclasses import dataclass

import torch

from embinv.config import Config
from embinv.models.inverter_model import InverterModel, count_parameters
from embinv.training.flops import flops_per_pass, flops_per_sample
from embinv.training.optimizer import split_parameters

AGAIN = 4 / 3  # what activation checkpointing makes of forward and backward: the forward pass is made twice


@dataclass(frozen=True)
class InverterSize:
    """An inverter's weights and arithmetic.

    Attributes:
        parameters: all weights.
        matrices: those that Muon moves, where it is chosen.
        training_flops: forward and backward of a text.
        body_flops: one text through the body, forward.
        head_flops: one position through the head.
        muon_flops: of an optimizer step, over all matrices; 0 with AdamW.
        hidden: H.
        layers: blocks.
        positions: of a text in the body, pseudo-tokens included.
        seq_len: L.
        vocabulary: V.
        writes_left_to_right: a T5, which makes one pass a token.
    """

    parameters: int
    matrices: int
    training_flops: float
    body_flops: float
    head_flops: float
    muon_flops: float
    hidden: int
    layers: int
    positions: int
    seq_len: int
    vocabulary: int
    writes_left_to_right: bool

    def writing_flops(self, passes: int) -> float:
        """FLOPs of recovering one text.

        A denoiser sends all positions through the body in each pass and asks the head for what is still hidden: of L
        tokens a pass takes L / n, so that (n + 1) / 2n of them are asked for in the mean. A T5 remembers what it has
        read: all its passes together are one, and each asks once.
        """
        if self.writes_left_to_right:
            return self.body_flops + self.seq_len * self.head_flops
        passes = min(passes, self.seq_len)
        return passes * self.body_flops + self.seq_len * (passes + 1) / 2 * self.head_flops

    def passes(self, asked: int) -> int:
        """How often the weights are read for a batch of texts."""
        return self.seq_len if self.writes_left_to_right else min(asked, self.seq_len)


def inverter_size(config: Config, vocabulary: int) -> InverterSize:
    """The size of the model that a config trains.

    Args:
        config: a whole one.
        vocabulary: V, tokens that the model knows.

    Raises:
        ValueError: it starts from a backbone, whose widths are in its files; or widths do not fit each other.
    """
    if config.model.backbone is not None or config.model.inverter is not None:
        name = "backbone" if config.model.backbone is not None else "inverter"
        raise ValueError(
            f"model.{name} {getattr(config.model, name)!r}: its sizes are in its files, which a plan does not read; "
            f"give the model.size that comes nearest, with --set model.{name}=null"
        )
    model = _made(config, vocabulary)
    body, head = flops_per_pass(model)
    matrices, _ = split_parameters(model)
    muon = config.training.optimizer == "muon"
    again = AGAIN if config.training.activation_checkpointing else 1.0
    made = model.config
    pseudo_tokens = 0 if config.model.family == "t5" else made.pseudo_tokens
    return InverterSize(
        parameters=count_parameters(model)["total"],
        matrices=sum(matrix.numel() for matrix in matrices) if muon else 0,
        training_flops=again * flops_per_sample(model),
        body_flops=body,
        head_flops=head,
        muon_flops=sum(muon_flops(*matrix.shape) for matrix in matrices) if muon else 0.0,
        hidden=made.hidden,
        layers=made.layers,
        positions=pseudo_tokens + made.seq_len,
        seq_len=made.seq_len,
        vocabulary=vocabulary,
        writes_left_to_right=config.model.family == "t5",
    )


def _made(config: Config, vocabulary: int) -> InverterModel:
    """The model on tensors without data."""
    dim, length = config.encoder.dim, config.data.seq_len
    with torch.device("meta"):
        if config.model.family == "t5":
            from embinv.models.t5_pretrained import empty_t5
            from embinv.models.t5_settings import complete

            return empty_t5(complete(config.model, vocabulary, dim, length, (1, 0)))
        from embinv.models.mdlm import ConditionalMDLM
        from embinv.models.mdlm_corrector import CorrectingMDLM

        settled = config.model.resolve(vocabulary, dim, length)
        return CorrectingMDLM(settled) if config.model.corrector else ConditionalMDLM(settled)


def muon_flops(rows: int, columns: int) -> float:
    """FLOPs of orthogonalising a matrix, as embinv/training/muon.py does it.

    Each of four polynomials takes a Gram matrix, its square, and a product with the matrix. A matrix at least twice as
    wide as high takes two polynomials at once: two of the products with it are spared, for products of Gram matrices.
    """
    small, large = min(rows, columns), max(rows, columns)
    gram, square = 2.0 * small * small * large, 2.0 * small**3
    if large >= 2 * small:
        return 2 * (2 * gram + 5 * square)
    return 4 * (2 * gram + square)
