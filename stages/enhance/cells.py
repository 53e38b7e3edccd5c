"""The cells that an enhancer works on: the patches, or several cells along each side of a patch.

Letters: K rows, H heads, R C rows and columns of patches, P Q of cells.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch.nn.functional import interpolate

from ...manifests.artifact.facts import MapsFacts
from ...manifests.errors import ConfigError
from ..vision.fitting import Box, valid_patches


@dataclass(frozen=True, slots=True)
class Cells:
    per_patch: int  # along each side
    grid: tuple[int, int]  # of cells
    size: tuple[int, int]  # of a cell, in pixels of the view
    patch: tuple[int, int]
    align_corners: bool  # how the maps of heads are upsampled

    def valid(self, box: Box) -> Bool[np.ndarray, "P Q"]:
        """The cells of valid patches."""
        patches = (self.grid[0] // self.per_patch, self.grid[1] // self.per_patch)
        valid_RC = valid_patches(box, self.patch, patches)
        return valid_RC.repeat(self.per_patch, axis=0).repeat(self.per_patch, axis=1)

    def upsample(self, maps: Float32[np.ndarray, "K H R C"]) -> Float32[np.ndarray, "K H P Q"]:
        if self.per_patch == 1:
            return maps
        finer = interpolate(torch.from_numpy(maps), self.grid, mode="bilinear", align_corners=self.align_corners)
        return finer.numpy()


def cells_of(facts: MapsFacts, per_patch: int) -> Cells:
    """The cells of maps with these facts."""
    rows, columns = facts.grid
    patch_rows, patch_columns = facts.patch
    if patch_rows % per_patch or patch_columns % per_patch:
        raise ConfigError(f"patches of {patch_rows}×{patch_columns} pixels cannot have {per_patch} cells a side")
    return Cells(
        per_patch,
        (rows * per_patch, columns * per_patch),
        (patch_rows // per_patch, patch_columns // per_patch),
        (patch_rows, patch_columns),
        facts.align_corners,
    )


def facts_of_enhanced(facts: MapsFacts, cells: Cells) -> MapsFacts:
    """The facts of enhanced maps. A cell is fitted to the truth within it, so its value belongs to its centre."""
    return replace(facts, grid=cells.grid, patch=cells.size, score_kind="probability", align_corners=False)
