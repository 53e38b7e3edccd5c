"""Pictures of any size as the one size that a view has, and as what a backbone takes.

Letters: H W a picture, R C rows and columns of patches, B pictures of a batch.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from torch import Tensor

Fit = Literal["pad", "squash"]  # that lose nothing of a picture
FitOrCrop = Literal["crop", "pad", "squash"]
Box = tuple[int, int, int, int]  # top, left, bottom, right of the picture, in pixels of the fitted one
Colour = tuple[float, float, float]  # per channel; 1 is full


def fit_picture(
    picture: UInt8[np.ndarray, "H W 3"], rows_px: int, columns_px: int, fit: FitOrCrop, mean: Colour
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Box]:
    """The picture at the size of the view, and where it lies in it.

    "squash" ignores the aspect, as torchvision's Resize((rows, columns)) of a Pillow image does. "pad" keeps it: the
    picture is as large as fits and lies in the top left corner, so that one row or column of patches at most is half
    picture; the rest has the mean colour, which is 0 to the backbone. "crop" keeps it too: the picture is as small as
    covers the view, as torchvision's Resize of the shorter side and CenterCrop have it, and its box is larger.
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
    """The patches of which more than half is picture; where a sliver of a picture has none, those that it touches."""
    rows = _patch_coverage(box[0], box[2], patch[0], grid[0])
    columns = _patch_coverage(box[1], box[3], patch[1], grid[1])
    covered_RC = rows[:, None] * columns[None, :]
    valid_RC = 2 * covered_RC > patch[0] * patch[1]
    return valid_RC if valid_RC.any() else covered_RC > 0


def as_input(
    pictures: UInt8[Tensor, "B rows columns 3"], mean: Colour, std: Colour
) -> Float32[Tensor, "B 3 rows columns"]:
    """Normalised as torchvision's ToTensor and Normalize do, on the device where the pictures are."""
    scaled = pictures.permute(0, 3, 1, 2).contiguous().float().div_(255)
    shift, width = (torch.tensor(values, device=scaled.device).view(3, 1, 1) for values in (mean, std))
    return scaled.sub_(shift).div_(width)


def _crop_picture(
    picture: UInt8[np.ndarray, "H W 3"], rows_px: int, columns_px: int
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Box]:
    height, width = picture.shape[:2]
    is_wide = rows_px * width >= columns_px * height  # and so loses columns
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
    """How many pixels of each patch along one axis lie between start and stop."""
    first = np.arange(count) * size
    return np.clip(np.minimum(first + size, stop) - np.maximum(first, start), 0, None)
