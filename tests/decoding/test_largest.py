import pytest
import torch

from embinv.decoding.largest import BLOCK, largest


@pytest.mark.parametrize("width", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1000])
@pytest.mark.parametrize("lines", [0, 1, 50])
def test_number_and_place_are_those_of_max(lines, width):
    generator = torch.Generator().manual_seed(0)
    for numbers in (
        torch.randn((lines, width), generator=generator),
        torch.randint(-3, 3, (lines, width), generator=generator).float(),  # many equal ones: the first counts
        torch.randn((lines, width), generator=generator).index_fill(1, torch.tensor([width - 1]), -torch.inf),
    ):
        best, place = largest(numbers)
        expected = numbers.max(dim=1)
        assert torch.equal(best, expected.values)
        assert torch.equal(place, expected.indices)


def test_every_place_can_be_found():
    width = 2 * BLOCK + 5
    best, place = largest(torch.eye(width))
    assert torch.equal(place, torch.arange(width))
    assert (best == 1).all()
