"""A soft map of a view's patches at the size of the picture in it.

Letters: R C rows and columns of patches, I J pixels of the picture.
"""

import numpy as np
from jaxtyping import Bool, Float16, Float32

from ..vision.fitting import Box, valid_patches


def upsample_maps(
    maps: Float32[np.ndarray, "*maps R C"] | Float16[np.ndarray, "*maps R C"],
    size: tuple[int, int],
    box: Box,
    patch: tuple[int, int],
    align_corners: bool,
) -> Float32[np.ndarray, "*maps I J"]:
    """Bilinear, to `size` (I, J) of the picture that lies in the box of the view. Leading axes share a picture.

    Not aligned: a patch's value stands at its centre, and each pixel takes the value at the place of its own centre in
    the view. Aligned, as CST upsamples: the values of the first and last patch stand at the centres of the view's first
    and last pixel, those between at equal steps, and the first and last pixel of the picture are those of the box. Over
    the whole view both are torch's interpolate; what a smaller box means where corners are aligned is this project's.

    Beyond the outermost valid patches their values go on: patches that are not valid have no share in any pixel. No
    pixel leaves the range of the valid patches' values, by rounding either.
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
    """From the first valid to the last."""
    places = np.flatnonzero(is_valid)
    return slice(int(places[0]), int(places[-1]) + 1)


def _weights(
    num_pixels: int, inside: tuple[int, int], patch_px: int, num_patches: int, valid: slice, align_corners: bool
) -> Float32[np.ndarray, "pixels patches"]:
    """How each pixel along one axis is made of the valid patches."""
    start, stop = inside
    pixels = np.arange(num_pixels)
    if align_corners:
        at_px = start + pixels * ((stop - 1 - start) / max(num_pixels - 1, 1))
        at = at_px * ((num_patches - 1) / max(num_patches * patch_px - 1, 1))
    else:
        at = (start + (pixels + 0.5) * ((stop - start) / num_pixels)) / patch_px - 0.5
    patches = np.arange(valid.start, valid.stop)
    nearest = np.clip(at, patches[0], patches[-1])
    return np.clip(1 - np.abs(nearest[:, None] - patches), 0, None).astype(np.float32)
