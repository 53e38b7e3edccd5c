"""DINO's resampling against its formula written out anew, pixel by pixel; timm's against timm."""

import math

import numpy as np
import pytest
import torch

from maskmill.manifests.errors import ConfigError
from maskmill.stages.vision.positions import num_prefix_positions, resample_as_dino, resample_as_timm


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel with torch's a."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def weights_along(side: int, count: int) -> np.ndarray:
    """How each of `count` places takes from `side` samples, stepping by side / (count + 0.1), borders repeated."""
    taken = np.zeros((count, side))
    for place in range(count):
        at = (place + 0.5) / ((count + 0.1) / side) - 0.5
        for near in range(math.floor(at) - 1, math.floor(at) + 3):
            taken[place, min(max(near, 0), side - 1)] += cubic(at - near)
    return taken


def positions_of(side: int, num_prefix: int, width: int = 5) -> torch.Tensor:
    return torch.randn(1, num_prefix + side**2, width, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", [(25, 25), (50, 50), (14, 28), (9, 31), (7, 7), (4, 49), (29, 27)])
def test_dinos_resampling_is_its_formula(grid, num_prefix):
    side = 14
    positions = positions_of(side, num_prefix)
    found = resample_as_dino(positions, grid, num_prefix)[0].numpy()
    square = positions[0, num_prefix:].reshape(side, side, -1).double().numpy()
    expected = np.einsum("rh,cw,hwd->rcd", weights_along(side, grid[0]), weights_along(side, grid[1]), square)
    assert found.shape == (num_prefix + grid[0] * grid[1], 5)
    assert np.array_equal(found[:num_prefix], positions[0, :num_prefix].numpy())
    assert np.abs(found[num_prefix:].reshape(expected.shape) - expected).max() < 1e-5


@pytest.mark.parametrize("side", range(1, 40))
def test_no_grid_is_lost_to_rounding(side):
    for rows in (1, 13, 28, 50, 60, 97):
        assert resample_as_dino(positions_of(side, 1, 1), (rows, rows + 1), 1).shape == (1, 1 + rows * (rows + 1), 1)


def test_the_grid_of_training_is_left_alone():
    positions = positions_of(14, 1)
    assert torch.equal(resample_as_dino(positions, (14, 14), 1), positions)
    assert torch.equal(resample_as_timm(positions, (14, 14), 1), positions)


def test_the_two_ways_differ():
    positions = positions_of(28, 1)
    dino, timms = resample_as_dino(positions, (50, 50), 1), resample_as_timm(positions, (50, 50), 1)
    assert dino.shape == timms.shape
    assert 1e-3 < (dino - timms).abs().max() < 1


def test_timms_way_keeps_the_middle_and_the_prefix():
    """Sampled where pixel centres fall on each other: at three times the size, every third place is the old one."""
    positions = positions_of(5, 2)
    found = resample_as_timm(positions, (15, 15), 2)[0]
    assert torch.equal(found[:2], positions[0, :2])
    middle = found[2:].reshape(15, 15, -1)[4::3, 4::3][:3, :3]
    assert torch.allclose(middle, positions[0, 2:].reshape(5, 5, -1)[1:4, 1:4], atol=1e-5)


@pytest.mark.parametrize(("count", "num_prefix"), [(197, 1), (785, 1), (198, 2), (1369, 0), (1370, 1), (201, 5)])
def test_prefix_positions_are_what_a_square_leaves(count, num_prefix):
    assert num_prefix_positions(count) == num_prefix


def test_positions_of_no_square_are_refused():
    with pytest.raises(ConfigError, match="positions = timm"):
        num_prefix_positions(1 + 14 * 28)
