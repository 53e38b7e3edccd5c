"""The share of each cell of a view that masks cover.

Letters: K masks, I J pixels of a picture, R C rows and columns of cells.
"""

import numpy as np
from jaxtyping import Bool, Float32

from .fitting import Box


def cell_shares(
    masks: Bool[np.ndarray, "K I J"], box: Box, size: tuple[int, int], grid: tuple[int, int]
) -> Float32[np.ndarray, "K R C"]:
    """The share of each cell's area that a mask covers; the picture fills its box of the view."""
    rows_RI = _overlaps(grid[0], size[0], (box[0], box[2]), masks.shape[1])
    columns_CJ = _overlaps(grid[1], size[1], (box[1], box[3]), masks.shape[2])
    return rows_RI @ masks.astype(np.float32) @ columns_CJ.T


def _overlaps(
    num_cells: int, cell_px: int, inside: tuple[int, int], num_pixels: int
) -> Float32[np.ndarray, "cells pixels"]:
    """The share of each cell that each pixel of the picture covers, along one axis."""
    edges = inside[0] + np.arange(num_pixels + 1) * ((inside[1] - inside[0]) / num_pixels)
    first = np.arange(num_cells)[:, None] * cell_px
    covered = np.minimum(first + cell_px, edges[1:]) - np.maximum(first, edges[:-1])
    return (np.clip(covered, 0, None) / cell_px).astype(np.float32)
