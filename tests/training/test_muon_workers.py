"""Muon on workers that share its products out: the same weights as one process has, each product made once."""

import os
from datetime import timedelta

import pytest
import torch
from torch import nn

from embinv.training import muon
from embinv.training.muon import Muon, shared_out

SHAPES = [(24, 24), (8, 32), (32, 8), (16, 16), (4, 40)]
UNUSED = 3  # has no gradient at the second step


def steps(shared, count=3):
    """Moves the same matrices by the same gradients; returns them, their momenta and which shapes were multiplied."""
    generator, multiplied = torch.Generator().manual_seed(0), []
    matrices = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = Muon(matrices, lr=0.1, weight_decay=0.1, shared=shared)
    whole = muon.orthogonalise
    muon.orthogonalise = lambda matrix: multiplied.append(tuple(matrix.shape)) or whole(matrix)
    try:
        for step in range(count):
            for place, matrix in enumerate(matrices):
                gradient = torch.randn(matrix.shape, generator=generator)
                matrix.grad = None if (step, place) == (1, UNUSED) else gradient
            optimizer.step()
    finally:
        muon.orthogonalise = whole
    momenta = [state["momentum_buffer"] for state in optimizer.state_dict()["state"].values()]
    return [matrix.detach() for matrix in matrices], momenta, multiplied


def worker(rank, world, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    try:
        torch.save(steps(True), folder / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, len(SHAPES) + 1])
def test_workers_move_the_weights_as_one_process_does_and_make_each_product_once(tmp_path, world):
    matrices, momenta, multiplied = steps(False)
    torch.multiprocessing.spawn(worker, (world, tmp_path), nprocs=world)
    outcomes = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for found, found_momenta, _ in outcomes:
        assert all(torch.equal(a, b) for a, b in zip(found, matrices, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(found_momenta, momenta, strict=True))
    made = [shape for *_, shapes in outcomes for shape in shapes]
    assert sorted(made) == sorted(multiplied) and len(made) == 3 * len(SHAPES) - 1
    if world > 1:
        assert max(len(shapes) for *_, shapes in outcomes) < len(made)


def test_every_matrix_is_shared_out_once_and_evenly():
    shapes = [torch.Size(shape) for shape in ([(64, 64)] * 16 + [(64, 256), (256, 64)] * 4)]
    cost = {place: min(shape) ** 2 * max(shape) for place, shape in enumerate(shapes)}
    for workers in (1, 2, 3, 5):
        shares = shared_out(shapes, workers)
        assert sorted(place for share in shares for place in share) == list(range(len(shapes)))
        loads = [sum(cost[place] for place in share) for share in shares]
        assert max(loads) <= sum(cost.values()) / workers + max(cost.values())


def test_more_workers_than_matrices_leave_some_with_nothing():
    assert shared_out([torch.Size((2, 2)), torch.Size((4, 4))], 3) == [[1], [0], []]
