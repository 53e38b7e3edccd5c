"""Fits pictures to the size of a view, and normalises them for a backbone.

Letters: H W a picture, R C rows and columns of patches, B pictures of a batch.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from torch import Tensor

from ..choices import FitOrCrop

Box = tuple[int, int, int, int]  # top, left, bottom, right of the picture, in pixels of the view
Colour = tuple[float, float, float]  # per channel, from 0 to 1


def fit_picture(
    picture: UInt8[np.ndarray, "H W 3"], rows_px: int, columns_px: int, fit: FitOrCrop, mean: Colour
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Box]:
    """The view of a picture, and the picture's box in it.

    "squash" ignores the aspect ratio, as torchvision's Resize((rows, columns)) does for a Pillow image. "pad" keeps it:
    the picture fits inside, in the top left corner, so that at most one row or column of patches is partly covered; the
    rest has the mean colour, which the backbone sees as 0. "crop" keeps it too: the picture covers the view, as with
    torchvision's Resize of the shorter side and CenterCrop, and its box is larger than the view.
    """
    if fit == "squash":
        return _resize_picture(picture, rows_px, columns_px), (0, 0, rows_px, columns_px)
    if fit == "crop":
        return _crop_picture(picture, rows_px, columns_px)
    height, width = picture.shape[:2]
    scale = min(rows_px / height, columns_px / width)
    bottom = min(rows_px, max(1, round(height * scale)))
    right = min(columns_px, max(1, round(width * scale)))
    canvas = np.empty((rows_px, columns_px, 3), np.uint8)
    canvas[:] = [round(255 * channel) for channel in mean]
    canvas[:bottom, :right] = _resize_picture(picture, bottom, right)
    return canvas, (0, 0, bottom, right)


def valid_patches(box: Box, patch: tuple[int, int], grid: tuple[int, int]) -> Bool[np.ndarray, "R C"]:
    """The patches that are more than half picture; for a picture without any, the patches it touches."""
    rows = _patch_coverage(box[0], box[2], patch[0], grid[0])
    columns = _patch_coverage(box[1], box[3], patch[1], grid[1])
    covered_RC = rows[:, None] * columns[None, :]
    valid_RC = 2 * covered_RC > patch[0] * patch[1]
    return valid_RC if valid_RC.any() else covered_RC > 0


def as_input(
    pictures: UInt8[Tensor, "B rows columns 3"], mean: Colour, std: Colour
) -> Float32[Tensor, "B 3 rows columns"]:
    """Normalises like torchvision's ToTensor and Normalize, on the pictures' device."""
    scaled = pictures.permute(0, 3, 1, 2).contiguous().float().div_(255)
    shift, width = (torch.tensor(values, device=scaled.device).view(3, 1, 1) for values in (mean, std))
    return scaled.sub_(shift).div_(width)


def _crop_picture(
    picture: UInt8[np.ndarray, "H W 3"], rows_px: int, columns_px: int
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Box]:
    height, width = picture.shape[:2]
    is_wide = rows_px * width >= columns_px * height  # and loses columns
    high, wide = (rows_px, rows_px * width // height) if is_wide else (columns_px * height // width, columns_px)
    top, left = round((high - rows_px) / 2), round((wide - columns_px) / 2)  # to even, as torchvision does
    view = _resize_picture(picture, high, wide)[top : top + rows_px, left : left + columns_px]
    return view, (-top, -left, high - top, wide - left)


def _resize_picture(
    picture: UInt8[np.ndarray, "H W 3"], rows_px: int, columns_px: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    image = Image.fromarray(picture)
    return np.array(image.resize((columns_px, rows_px), Image.Resampling.BILINEAR))


def _patch_coverage(start: int, stop: int, size: int, count: int) -> np.ndarray:
    """The number of pixels of each patch, along one axis, between start and stop."""
    first = np.arange(count) * size
    return np.clip(np.minimum(first + size, stop) - np.maximum(first, start), 0, None)
