"""Joint bilateral upsampling: soft maps go from their patches to the pixels of the picture along its colours.

Letters: K soft maps, R C rows and columns of the patches that show the picture, H W pixels, I rows of a block of
pixels, N patches of a window.

Kopf, Cohen, Lischinski, Uyttendaele: Joint Bilateral Upsampling (SIGGRAPH 2007). A pixel is the mean of the patches in
its window, the nearest patch and `radius` more on every side, with the weights

    exp(−d² / 2 spatial²) · exp(−c² / 2 range²)

where d is the distance of pixel and patch in patches, and c that of their colours, from 0 to 1 per channel. This
project's own: a patch has the mean colour of its pixels, where the paper takes the pixel at its centre, since a patch
of 14 pixels has no typical pixel; and a patch is at its centre, also for maps whose corners are aligned when they are
interpolated, because its colour is there.

Weights are divided by their largest, so that they never all vanish. The mean stays within the values of a map, which
keeps constants exactly, so thresholds mean the same as on the patches.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from ..maps.one_thread import one_thread
from ..maps.upsampling import patch_positions, span
from ..vision.fitting import Box, valid_patches
from .presets import JointBilateralPreset

BLOCK_VALUES = 2**21  # weights that are computed together: 8 MB, whatever the size of the picture


def joint_bilateral_maps(
    maps: Float32[np.ndarray, "K rows columns"],
    picture: UInt8[np.ndarray, "H W 3"],
    box: Box,
    patch: tuple[int, int],
    preset: JointBilateralPreset,
    device: str = "cpu",
    block_values: int = BLOCK_VALUES,
) -> Float32[np.ndarray, "K H W"]:
    """Maps of a view at the size of the picture, which fills the box. Only patches that show the picture count.

    On a CPU one thread works, so that bytes do not depend on the number of threads.
    """
    valid = valid_patches(box, patch, (maps.shape[1], maps.shape[2]))
    patches = span(np.any(valid, axis=1)), span(np.any(valid, axis=0))
    sides = [(picture.shape[axis], (box[axis], box[axis + 2]), patch[axis], patches[axis]) for axis in (0, 1)]
    rows, columns = (_Side.of(*side, preset, device) for side in sides)
    block_rows = max(1, block_values // (len(rows.near) * len(columns.near) * picture.shape[1]))
    upsampled_KHW = np.empty((len(maps), *picture.shape[:2]), np.float32)
    with torch.inference_mode(), one_thread() if device == "cpu" else nullcontext():
        colours_3RC = _patch_colours(picture, *(_pixel_shares(*side) for side in sides)).to(device)
        maps_KRC = torch.from_numpy(maps[:, patches[0], patches[1]].copy()).to(device)
        for start in range(0, picture.shape[0], block_rows):
            block = slice(start, start + block_rows)
            pixels_3IW = torch.from_numpy(picture[block].astype(np.float32) / 255).permute(2, 0, 1).to(device)
            weights_NIW = _weights(pixels_3IW, colours_3RC, rows.cut(block), columns, preset)
            upsampled_KHW[:, block] = _average_patches(maps_KRC, weights_NIW, rows.cut(block), columns).cpu().numpy()
    return upsampled_KHW


@dataclass(frozen=True, slots=True)
class _Side:
    """The windows of the pixels along one side of the picture, step by step from their first patch to their last."""

    near: Int64[Tensor, "steps pixels"]  # the patch; beyond the last valid one that one again
    far: Float32[Tensor, "steps pixels"]  # minus the logarithm of its spatial weight; infinite beyond the last

    @classmethod
    def of(
        cls,
        num_pixels: int,
        inside: tuple[int, int],
        patch_px: int,
        patches: slice,
        preset: JointBilateralPreset,
        device: str,
    ) -> "_Side":
        at = patch_positions(num_pixels, inside, patch_px) - patches.start
        last = patches.stop - patches.start - 1
        reach = min(preset.radius, last)
        nearest = np.clip(np.floor(at + 0.5).astype(np.int64), 0, last)
        near = nearest + np.arange(-reach, reach + 1)[:, None]
        is_valid = (near >= 0) & (near <= last)
        far = np.where(is_valid, (at - near) ** 2 / (2 * preset.spatial**2), np.inf).astype(np.float32)
        return cls(torch.from_numpy(near.clip(0, last)).to(device), torch.from_numpy(far).to(device))

    def cut(self, block: slice) -> "_Side":
        return _Side(self.near[:, block], self.far[:, block])


def _pixel_shares(
    num_pixels: int, inside: tuple[int, int], patch_px: int, patches: slice
) -> Float32[np.ndarray, "patches pixels"]:
    """The share of each pixel in the mean of each patch: the overlap of the two, since a pixel may cross an edge."""
    edges = inside[0] + np.arange(num_pixels + 1) * ((inside[1] - inside[0]) / num_pixels)
    starts = np.arange(patches.start, patches.stop)[:, None] * patch_px
    overlap = np.minimum(edges[1:], starts + patch_px) - np.maximum(edges[:-1], starts)
    overlap = overlap.clip(0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _patch_colours(
    picture: UInt8[np.ndarray, "H W 3"],
    row_shares: Float32[np.ndarray, "R H"],
    column_shares: Float32[np.ndarray, "C W"],
) -> Float32[Tensor, "3 R C"]:
    """The mean colour of each patch, from 0 to 1. One channel at a time is at full size as floats."""
    rows_RH, columns_WC = torch.from_numpy(row_shares), torch.from_numpy(column_shares).T
    channels = (torch.from_numpy(picture[..., channel].astype(np.float32) / 255) for channel in range(3))
    return torch.stack([rows_RH @ channel_HW @ columns_WC for channel_HW in channels])


def _weights(
    pixels: Float32[Tensor, "3 I W"],
    colours: Float32[Tensor, "3 R C"],
    rows: _Side,
    columns: _Side,
    preset: JointBilateralPreset,
) -> Float32[Tensor, "N I W"]:
    """The weight of each patch in the window of each pixel; the largest of a pixel is 1."""
    steps = list(_steps(rows, columns))
    far_NIW = pixels.new_empty((len(steps), *pixels.shape[1:]))
    for far_IW, (row, column) in zip(far_NIW, steps, strict=True):
        red, green, blue = (_gather(colours, rows.near[row], columns.near[column]) - pixels).square_().unbind(0)
        far_IW.copy_(red).add_(green).add_(blue).mul_(1 / (2 * preset.range**2))
        far_IW.add_(rows.far[row][:, None]).add_(columns.far[column])
    return far_NIW.sub_(far_NIW.amin(0)).neg_().exp_()


def _average_patches(
    maps: Float32[Tensor, "K R C"], weights: Float32[Tensor, "N I W"], rows: _Side, columns: _Side
) -> Float32[Tensor, "K I W"]:
    total_IW = torch.zeros_like(weights[0])
    sums_KIW = total_IW.new_zeros((len(maps), *total_IW.shape))
    for weight_IW, (row, column) in zip(weights, _steps(rows, columns), strict=True):
        total_IW += weight_IW
        sums_KIW += _gather(maps, rows.near[row], columns.near[column]).mul_(weight_IW)
    lowest_K, highest_K = maps.amin((1, 2)), maps.amax((1, 2))
    return torch.clamp(sums_KIW.div_(total_IW), lowest_K[:, None, None], highest_K[:, None, None])


def _gather(
    planes: Float32[Tensor, "planes R C"], rows: Int64[Tensor, " I"], columns: Int64[Tensor, " W"]
) -> Float32[Tensor, "planes I W"]:
    return planes.index_select(1, rows).index_select(2, columns)


def _steps(rows: _Side, columns: _Side) -> Iterator[tuple[int, int]]:
    return product(range(len(rows.near)), range(len(columns.near)))
