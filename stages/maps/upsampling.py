"""Upsamples soft maps from a view's patches to the picture's pixels.

Letters: R C rows and columns of patches, I J pixels of the picture.
"""

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64

from ..vision.fitting import Box, valid_patches


def upsample_maps(
    maps: Float32[np.ndarray, "*maps R C"] | Float16[np.ndarray, "*maps R C"],
    size: tuple[int, int],
    box: Box,
    patch: tuple[int, int],
    align_corners: bool,
) -> Float32[np.ndarray, "*maps I J"]:
    """Bilinear, to `size` (I, J) of the picture that fills the box of the view. Leading axes share a picture.

    Not aligned: a patch's value is at its centre, and a pixel is sampled at its own centre in the view. Aligned, as in
    CST: the first and last patch are at the centres of the view's first and last pixel, the others at equal steps
    between, and the picture's first and last pixel are those of the box. For a box that fills the view both equal
    torch's interpolate; aligned corners in a smaller box are this project's definition.

    Invalid patches contribute to no pixel: the outermost valid values continue to the border. No pixel leaves the range
    of the valid values, not even by rounding.
    """
    grid = (maps.shape[-2], maps.shape[-1])
    assert 0 <= box[0] < box[2] <= grid[0] * patch[0], f"rows {box[0]} to {box[2]} are not in the view"
    assert 0 <= box[1] < box[3] <= grid[1] * patch[1], f"columns {box[1]} to {box[3]} are not in the view"
    valid_RC = valid_patches(box, patch, grid)
    rows, columns = span(np.any(valid_RC, axis=1)), span(np.any(valid_RC, axis=0))
    rows_IR = _weights(size[0], (box[0], box[2]), patch[0], grid[0], rows, align_corners)
    columns_JC = _weights(size[1], (box[1], box[3]), patch[1], grid[1], columns, align_corners)
    inside = maps[..., rows, columns]
    lowest, highest = inside.min(axis=(-2, -1), keepdims=True), inside.max(axis=(-2, -1), keepdims=True)
    at_pixels = rows_IR @ inside @ columns_JC.T
    return np.clip(at_pixels, lowest, highest, out=at_pixels)


def span(is_valid: Bool[np.ndarray, " patches"]) -> slice:
    """From the first valid patch to the last."""
    places = np.flatnonzero(is_valid)
    return slice(int(places[0]), int(places[-1]) + 1)


def patch_positions(num_pixels: int, inside: tuple[int, int], patch_px: int) -> Float64[np.ndarray, " pixels"]:
    """The centre of each pixel along one axis, counted in patches: 0 is the centre of the first patch."""
    start, stop = inside
    return (start + (np.arange(num_pixels) + 0.5) * ((stop - start) / num_pixels)) / patch_px - 0.5


def _weights(
    num_pixels: int, inside: tuple[int, int], patch_px: int, num_patches: int, valid: slice, align_corners: bool
) -> Float32[np.ndarray, "pixels patches"]:
    """The weights of the valid patches in each pixel along one axis."""
    start, stop = inside
    pixels = np.arange(num_pixels)
    if align_corners:
        at_px = start + pixels * ((stop - 1 - start) / max(num_pixels - 1, 1))
        at = at_px * ((num_patches - 1) / max(num_patches * patch_px - 1, 1))
    else:
        at = patch_positions(num_pixels, inside, patch_px)
    patches = np.arange(valid.start, valid.stop)
    nearest = np.clip(at, patches[0], patches[-1])
    return np.clip(1 - np.abs(nearest[:, None] - patches), 0, None).astype(np.float32)
