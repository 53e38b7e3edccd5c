"""Resamples position embeddings to other sizes, as DINO's code or as timm does.

Letters: P positions (prefix first), P2 resampled ones, D model width.

The two differ in the last digits of every token, so the choice is part of the fingerprint.
"""

import math

import torch
from jaxtyping import Float
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn.functional import interpolate

from ...manifests.errors import ConfigError

_MOST_PREFIX = 16  # class, distillation and register tokens


def num_prefix_positions(num_positions: int) -> int:
    """The number of positions before a square grid of patches; raises ConfigError if the grid is not square."""
    num_prefix = num_positions - math.isqrt(num_positions) ** 2
    if num_prefix > _MOST_PREFIX:
        raise ConfigError(
            f"{num_positions} position embeddings are not a square grid of patches, which DINO's resampling needs; "
            "choose positions = timm"
        )
    return num_prefix


def resample_as_dino(
    positions: Float[Tensor, "1 P D"], grid: tuple[int, int], num_prefix: int
) -> Float[Tensor, "1 P2 D"]:
    """Bicubic by a scale factor, with 0.1 added to the grid against rounding (facebookresearch/dino,
    vision_transformer.py, interpolate_pos_encoding); unchanged for the training grid."""
    prefix_1PD, patches_1PD = positions[:, :num_prefix], positions[:, num_prefix:]
    side = math.isqrt(patches_1PD.shape[1])
    if grid == (side, side):
        return positions
    square_1DRC = patches_1PD.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    resized_1DRC = interpolate(square_1DRC, scale_factor=factors, mode="bicubic")
    return torch.cat([prefix_1PD, resized_1DRC.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def resample_as_timm(
    positions: Float[Tensor, "1 P D"], grid: tuple[int, int], num_prefix: int
) -> Float[Tensor, "1 P2 D"]:
    """Bicubic to the grid's size, antialiased when shrinking."""
    return resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=num_prefix)
