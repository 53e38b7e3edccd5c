"""Merges the soft maps of several views of a picture on the patches of the first view.

Letters: M maps, R C rows and columns of patches in the source view, P Q in the target view, S T all patches of the
source and of the target.

All views are upright here: maps and boxes of a mirrored view have been turned back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ..maps.upsampling import span
from ..vision.fitting import Box, valid_patches

ScoreKind = Literal["cosine", "cosine01", "minmax", "probability", "share_of_max", "mean_at_half"]
Merge = Literal["mean", "sum"]
RELATIVE: Sequence[ScoreKind] = ("minmax", "share_of_max")  # scores relative to the other patches of the map


@dataclass(frozen=True, slots=True)
class Lattice:
    """The patches of a view, and where the picture lies among them."""

    grid: tuple[int, int]
    patch: tuple[int, int]  # in pixels
    box: Box


def resample_maps(
    maps: Float32[np.ndarray, "*maps R C"], source: Lattice, target: Lattice, align_corners: bool
) -> Float32[np.ndarray, "*maps P Q"]:
    """Bilinear: each patch of the target takes the value at its place in the picture.

    A patch's place is the same as in `upsampled`: its centre or, with aligned corners, a point between the centres of
    the view's first and last pixel. The outermost valid patches extend outwards. A value stays in the range of its
    neighbours, and equal lattices change no bit. Maps are not smoothed before a coarser target, so the first view
    should be the finest.

    With aligned corners, the only pixel of a picture that is one pixel wide in the target shows its middle, so that
    mirrored views give the mirrored map. This is the project's own choice.
    """
    if source == target:
        return maps
    valid_RC = valid_patches(source.box, source.patch, source.grid)
    with np.errstate(invalid="ignore"):  # an infinite map fails when it is written
        for axis in (0, 1):
            at = _places(source, target, axis, align_corners)
            maps = _interpolate(maps, at, span(np.any(valid_RC, axis=1 - axis)), axis - 2)
    return maps


def resample_to_lattices(
    targets: Sequence[Lattice], maps: Float32[np.ndarray, "M *heads S"], sources: Sequence[Lattice], align_corners: bool
) -> Float32[np.ndarray, "M *heads T"]:
    """Each map on the patches of another view of its picture."""
    maps_RC = maps.reshape(*maps.shape[:-1], *sources[0].grid)
    resampled = np.empty((*maps.shape[:-1], *targets[0].grid), np.float32)
    pairs = list(zip(sources, targets, strict=True))
    for pair in dict.fromkeys(pairs):  # most pictures of a dataset share one
        places = [place for place, other in enumerate(pairs) if other == pair]
        resampled[places] = resample_maps(maps_RC[places], *pair, align_corners)
    return resampled.reshape(*maps.shape[:-1], -1)


def merge_maps(
    maps: Sequence[Float32[np.ndarray, "M *heads T"]], valid: Bool[np.ndarray, "M T"], merge: Merge, kind: ScoreKind
) -> Float32[np.ndarray, "M *heads T"]:
    """Merging equal maps gives that map, to the bit.

    A sum is rescaled to its score kind; maps of heads use the scale of their mean. Patches outside the picture keep the
    values of the first view.
    """
    with np.errstate(invalid="ignore"):  # as above
        total = np.sum(maps, axis=0, dtype=np.float64)
        if merge == "mean":
            total /= len(maps)
        else:
            heads = tuple(range(1, total.ndim - 1))
            low_M, height_M = _scale(total.mean(axis=heads), valid, kind)
            shape = (-1, *(1 for _ in heads), 1)
            total = (total - low_M.reshape(shape)) / height_M.reshape(shape)
    is_picture = valid.reshape(len(valid), *(1 for _ in range(total.ndim - 2)), -1)
    return np.where(is_picture, total.astype(np.float32), maps[0])


def mirror_patches(values: Shaped[np.ndarray, "*maps T"], grid: tuple[int, int]) -> Shaped[np.ndarray, "*maps T"]:
    """Mirrored from left to right."""
    return values.reshape(*values.shape[:-1], *grid)[..., ::-1].reshape(values.shape)


def valid_patch_masks(lattices: Sequence[Lattice]) -> Bool[np.ndarray, "M T"]:
    """The patches that show the picture."""
    masks = {lattice: valid_patches(lattice.box, lattice.patch, lattice.grid).ravel() for lattice in set(lattices)}
    return np.stack([masks[lattice] for lattice in lattices])


def _scale(
    map_MT: Float64[np.ndarray, "M T"], valid: Bool[np.ndarray, "M T"], kind: ScoreKind
) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
    """The offset and divisor that bring the largest valid value to 1 and, for `minmax`, the smallest to 0. The divisor
    of a constant map is 1."""
    assert kind in RELATIVE, f"maps whose scores are {kind} cannot be summed"
    high_M = np.where(valid, map_MT, -np.inf).max(axis=1)
    low_M = np.where(valid, map_MT, np.inf).min(axis=1) if kind == "minmax" else np.zeros_like(high_M)
    return low_M, np.where(high_M == low_M, 1, high_M - low_M)


def _places(source: Lattice, target: Lattice, axis: int, align_corners: bool) -> Float64[np.ndarray, " patches"]:
    """The places of the target's patches along one axis, in patches of the source."""
    patches = np.arange(target.grid[axis])
    start, stop = source.box[axis], source.box[axis + 2]
    target_start, target_stop = target.box[axis], target.box[axis + 2]
    if not align_corners:
        inside = ((patches + 0.5) * target.patch[axis] - target_start) / (target_stop - target_start)
        return (start + inside * (stop - start)) / source.patch[axis] - 0.5
    last_px, target_last_px = (view.grid[axis] * view.patch[axis] - 1 for view in (source, target))
    steps = len(patches) - 1
    at_px = patches * (target_last_px / steps) if steps else np.array([target_last_px / 2])
    inside = (at_px - target_start) / max(target_stop - 1 - target_start, 1)
    if target_stop - target_start == 1:
        inside += 0.5
    return (start + inside * (stop - 1 - start)) * ((source.grid[axis] - 1) / max(last_px, 1))


def _interpolate(
    maps: Float32[np.ndarray, "*maps R C"], at: Float64[np.ndarray, " patches"], valid: slice, axis: int
) -> Float32[np.ndarray, "*maps P Q"]:
    """The maps at places along one axis. Rounding and the number of threads leave equal values equal."""
    nearest = np.clip(at, valid.start, valid.stop - 1)
    below = np.floor(nearest).astype(np.int64)
    above = np.minimum(below + 1, valid.stop - 1)
    share = (nearest - below).astype(np.float32)
    low, high = maps.take(below, axis), maps.take(above, axis)
    between = low + (high - low) * (share[:, None] if axis == -2 else share)
    return np.clip(between, np.minimum(low, high), np.maximum(low, high))
