"""Soft maps of several views of a picture as one map, on the patches of the first view.

Letters: M maps, R C rows and columns of patches in the view that a map is of, P Q in the one that it is brought to,
S T all patches of the one and of the other.

All views are upright here: maps and boxes of a mirrored one have been turned back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ..maps.upsampling import span
from ..vision.fitting import Box, valid_patches

ScoreKind = Literal["cosine01", "minmax", "probability", "share_of_max", "mean_at_half"]
Merge = Literal["mean", "sum"]
RELATIVE: Sequence[ScoreKind] = ("minmax", "share_of_max")  # that say how a patch stands to the others of its map


@dataclass(frozen=True, slots=True)
class Lattice:
    """The patches of a view, and where the picture lies among them."""

    grid: tuple[int, int]
    patch: tuple[int, int]  # in pixels
    box: Box


def resample_maps(
    maps: Float32[np.ndarray, "*maps R C"], source: Lattice, target: Lattice, align_corners: bool
) -> Float32[np.ndarray, "*maps P Q"]:
    """Bilinear, each patch of the target taking the value at its own place in the picture.

    A patch's place is where `upsampled` has its value stand: at its centre, or, where corners are aligned, between the
    centres of the view's first and last pixel. Beyond the outermost valid patches of the source their values go on. No
    value leaves the range of those between which it lies, and a lattice onto itself changes no bit. What is coarser
    than the source is not smoothed first: the first view is best the finest.
    """
    if source == target:
        return maps
    valid_RC = valid_patches(source.box, source.patch, source.grid)
    with np.errstate(invalid="ignore"):  # a map with infinity in it fails when it is written
        for axis in (0, 1):
            at = _places(source, target, axis, align_corners)
            maps = _interpolate(maps, at, span(np.any(valid_RC, axis=1 - axis)), axis - 2)
    return maps


def resample_to_lattices(
    targets: Sequence[Lattice],
    maps: Float32[np.ndarray, "M *heads S"],
    sources: Sequence[Lattice],
    align_corners: bool,
) -> Float32[np.ndarray, "M *heads T"]:
    """Each map on the patches of another view of its picture."""
    maps_RC = maps.reshape(*maps.shape[:-1], *sources[0].grid)
    found = np.empty((*maps.shape[:-1], *targets[0].grid), np.float32)
    pairs = list(zip(sources, targets, strict=True))
    for pair in dict.fromkeys(pairs):  # pictures of one size, most often
        alike = [place for place, each in enumerate(pairs) if each == pair]
        found[alike] = resample_maps(maps_RC[alike], *pair, align_corners)
    return found.reshape(*maps.shape[:-1], -1)


def merge_maps(
    maps: Sequence[Float32[np.ndarray, "M *heads T"]],
    valid: Bool[np.ndarray, "M T"],
    merge: Merge,
    kind: ScoreKind,
) -> Float32[np.ndarray, "M *heads T"]:
    """Several of one map are that map, to the bit.

    A sum is scaled so that it is of its score kind again; the maps of heads are as their mean is. Patches that are no
    picture are as in the first view, which alone has them.
    """
    with np.errstate(invalid="ignore"):  # as above
        total = np.sum(maps, axis=0, dtype=np.float64)
        if merge == "mean":
            total /= len(maps)
        else:
            heads = tuple(range(1, total.ndim - 1))
            low_M, height_M = _scale(total.mean(axis=heads), valid, kind)
            beside = (-1, *(1 for _ in heads), 1)
            total = (total - low_M.reshape(beside)) / height_M.reshape(beside)
    is_picture = valid.reshape(len(valid), *(1 for _ in range(total.ndim - 2)), -1)
    return np.where(is_picture, total.astype(np.float32), maps[0])


def mirror_patches(values: Shaped[np.ndarray, "*maps T"], grid: tuple[int, int]) -> Shaped[np.ndarray, "*maps T"]:
    """Mirrored from left to right."""
    return values.reshape(*values.shape[:-1], *grid)[..., ::-1].reshape(values.shape)


def valid_patch_masks(lattices: Sequence[Lattice]) -> Bool[np.ndarray, "M T"]:
    """The patches that are picture."""
    each = {lattice: valid_patches(lattice.box, lattice.patch, lattice.grid).ravel() for lattice in set(lattices)}
    return np.stack([each[lattice] for lattice in lattices])


def _scale(
    map_MT: Float64[np.ndarray, "M T"], valid: Bool[np.ndarray, "M T"], kind: ScoreKind
) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
    """What is taken away from a sum and what it is divided by. Of the kinds that say how a patch stands to the others
    of its map the largest valid value is 1, and of `minmax` the smallest is 0. A map of one value is moved alone."""
    assert kind in RELATIVE, f"a sum of maps whose scores are {kind} is none"
    high_M = np.where(valid, map_MT, -np.inf).max(axis=1)
    low_M = np.where(valid, map_MT, np.inf).min(axis=1) if kind == "minmax" else np.zeros_like(high_M)
    return low_M, np.where(high_M == low_M, 1, high_M - low_M)


def _places(source: Lattice, target: Lattice, axis: int, align_corners: bool) -> Float64[np.ndarray, " patches"]:
    """Where along one axis the target's patches stand among those of the source, in patches."""
    patches = np.arange(target.grid[axis])
    start, stop = source.box[axis], source.box[axis + 2]
    target_start, target_stop = target.box[axis], target.box[axis + 2]
    if not align_corners:
        inside = ((patches + 0.5) * target.patch[axis] - target_start) / (target_stop - target_start)
        return (start + inside * (stop - start)) / source.patch[axis] - 0.5
    last_px, target_last_px = (each.grid[axis] * each.patch[axis] - 1 for each in (source, target))
    steps = len(patches) - 1
    at_px = patches * (target_last_px / steps) if steps else np.array([target_last_px / 2])
    inside = (at_px - target_start) / max(target_stop - 1 - target_start, 1)
    return (start + inside * (stop - 1 - start)) * ((source.grid[axis] - 1) / max(last_px, 1))


def _interpolate(
    maps: Float32[np.ndarray, "*maps R C"], at: Float64[np.ndarray, " patches"], valid: slice, axis: int
) -> Float32[np.ndarray, "*maps P Q"]:
    """The maps at places along one axis. Neither rounding nor the number of threads moves an equal value."""
    nearest = np.clip(at, valid.start, valid.stop - 1)
    below = np.floor(nearest).astype(np.int64)
    above = np.minimum(below + 1, valid.stop - 1)
    share = (nearest - below).astype(np.float32)
    low, high = maps.take(below, axis), maps.take(above, axis)
    found = low + (high - low) * (share[:, None] if axis == -2 else share)
    return np.clip(found, np.minimum(low, high), np.maximum(low, high))
