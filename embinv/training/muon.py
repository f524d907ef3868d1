"""Muon: momentum whose matrices are orthogonalised before each step (Jordan et al. 2024).

Steps have the size of AdamW's: 0.2 sqrt(max(rows, columns)) a matrix (Liu et al. 2025, "Muon is scalable", eq. 4).

Four products of polynomials replace the usual five of Newton and Schulz, and rest on fewer FLOPs:

- The matrix is scaled by its Schatten 4-norm, which its Gram matrix gives for nothing, and not by the Frobenius norm.
  It bounds the largest singular value as well, and up to min(rows, columns)^(1/4) more closely: that is worth one step.
- The polynomials are those of Amsel et al. (2025, "The Polar Express", degree 5, for singular values from 0.0083), the
  best there are for four steps.
- A wide matrix is multiplied by two polynomials at once: both are found on its Gram matrix, which is square and small.
  A step of 768 x 3072 takes 6.5 products of its size in place of 9. More than two would lose small singular values to
  the rounding of bfloat16.

Workers that hold the same weights share the products out, as in Liu et al. (algorithm 1, for whole matrices): each
orthogonalises some of the matrices and sends the others what came of it, in bfloat16.

Shapes: M rows, N columns of a matrix, S = min(M, N), W workers.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed
from torch import Tensor, nn

# (a, b, c) of p(x) = a x + b x^3 + c x^5, one after another; all but the last leave room for rounding.
SAFETY = 1.01
_POLAR_EXPRESS = (
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
POLYNOMIALS = (
    *((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in _POLAR_EXPRESS[:-1]),
    _POLAR_EXPRESS[-1],
)
MOMENTUM = 0.95
TINY = 1e-7


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values of 1, roughly: those above 0.0083 of the bound come to 0.87 to 1.13.

    Args:
        matrix: [M, N] float.

    Returns:
        [M, N] bfloat16; zeros stay zeros.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()  # [S, max(M, N)]
    x = x / x.norm().clamp_min(TINY)  # so that no product over- or underflows
    gram = x @ x.T  # [S, S]
    bound = gram.norm().sqrt().clamp_min(TINY)  # the Schatten 4-norm
    x, gram = x / bound, gram / bound.square()
    if x.shape[1] >= 2 * x.shape[0]:
        x = _two_at_once(_two_at_once(x, gram, *POLYNOMIALS[:2]), None, *POLYNOMIALS[2:])
    else:
        for place, coefficients in enumerate(POLYNOMIALS):
            x = _factor(gram if place == 0 else x @ x.T, coefficients) @ x
    return x if wide else x.T


def _factor(gram: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """q(G) = a I + b G + c G^2, with q(X X^T) X = p(X)."""
    a, b, c = coefficients
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


def _two_at_once(
    x: Tensor, gram: Tensor | None, first: tuple[float, float, float], second: tuple[float, float, float]
) -> Tensor:
    """Applies two polynomials to x [S, N]; between them only its Gram matrix is followed."""
    gram = x @ x.T if gram is None else gram
    one = _factor(gram, first)  # [S, S], symmetric
    between = one @ gram @ one  # the Gram matrix of one @ x
    return (_factor(between, second) @ one) @ x


def shared_out(shapes: Sequence[torch.Size], workers: int) -> list[list[int]]:
    """Which worker orthogonalises which matrices: the dearest that is left goes to the one with the least to do.

    Args:
        shapes: of the matrices.
        workers: W.

    Returns:
        [W] places in `shapes`, the same wherever it is asked.
    """
    costs = [min(shape) ** 2 * max(shape) for shape in shapes]  # products of S x S and S x max(M, N)
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for place in sorted(range(len(shapes)), key=lambda place: -costs[place]):
        least = loads.index(min(loads))
        shares[least].append(place)
        loads[least] += costs[place]
    return shares


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices alone.

    Args:
        parameters: matrices.
        lr: of AdamW's scale.
        weight_decay: share of a weight that goes each step, times `lr`.
        shared: the workers of torch.distributed's default group hold the same matrices, gradients and momentum and step
            together. The group itself is not kept: it must not outlive its end.

    Raises:
        ValueError: a parameter is no matrix.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        shared: bool = False,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.shared = shared
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon moves matrices, and a parameter has shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every matrix that has a gradient."""
        assert closure is None, "closures are not used here"
        moved = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for (parameter, group), update in zip(moved, self._updates([p for p, _ in moved]), strict=True):
            rate = group["lr"]
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)

    def _updates(self, matrices: list[nn.Parameter]) -> Iterator[Tensor]:
        """Each matrix's step before its size, bfloat16; momentum is kept by every worker, so that any can save it."""
        workers = torch.distributed.get_world_size() if self.shared else 1
        if workers == 1 or not matrices:
            yield from (orthogonalise(self._direction(matrix, self._momentum(matrix))) for matrix in matrices)
            return
        shares = shared_out([matrix.shape for matrix in matrices], workers)
        longest = max(sum(matrices[place].numel() for place in share) for share in shares)
        sent = torch.zeros(longest, dtype=torch.bfloat16, device=matrices[0].device)
        own = self._places(matrices, shares[torch.distributed.get_rank()], sent)
        for place, matrix in enumerate(matrices):
            momentum = self._momentum(matrix)
            if place in own:
                own[place].copy_(orthogonalise(self._direction(matrix, momentum)))
        found = [torch.empty_like(sent) for _ in shares]
        torch.distributed.all_gather(found, sent)
        of_all: dict[int, Tensor] = {}
        for share, part in zip(shares, found, strict=True):
            of_all |= self._places(matrices, share, part)
        yield from (of_all[place] for place in range(len(matrices)))

    @staticmethod
    def _places(matrices: list[nn.Parameter], share: list[int], buffer: Tensor) -> dict[int, Tensor]:
        """Views of a buffer [longest], one for each matrix of a share, by its place."""
        views, begin = {}, 0
        for place in share:
            size = matrices[place].numel()
            views[place] = buffer[begin : begin + size].view(matrices[place].shape)
            begin += size
        return views

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        """The mean of the gradients so far, this one taken in."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        return state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)

    @staticmethod
    def _direction(matrix: nn.Parameter, momentum: Tensor) -> Tensor:
        """Nesterov's: from the gradient most of the way to its momentum."""
        assert matrix.grad is not None
        return matrix.grad.lerp(momentum, MOMENTUM)
