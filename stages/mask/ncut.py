"""The objects that normalised cuts of a picture's key graph find: TokenCut's one, and MaskCut's several.

Letters: T valid patches, D key width, R C rows and columns of patches, N instances.

Sources: TokenCut, object_discovery.py, ncut and detect_box; MaskCut, CutLER's maskcut.py, maskcut_forward (Wang et al.,
CVPR 2023). Both cut at the mean of the second smallest eigenvector, take the side of its largest entry, and of that the
patches that hang together with this entry by their sides. What differs from them here:

- Patches that are no picture are in no graph, count as no corner and in no area. The originals have no padding.
- A graph whose second and third eigenvalue are within LEAST_GAP has no cut: any mixture of their vectors would do, and
  the originals show the one that LAPACK comes upon. Nor has a picture of fewer than three patches.
- The originals leave the vector's sign to LAPACK, and MaskCut's rule of the corners acts on one sign only. Here the
  vector always points to its largest entry first, the first one of those that are equal but for rounding; then a
  foreground with three or more of the picture's corners gives way to the other side.
- Patches on the mean, but for rounding, are background, of whichever side.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from .eigenvectors import second_eigenvector
from .key_graph import KeyGraph, key_graph

LEAST_GAP = 1e-4
MEAN = np.float32(0.5)  # where the mean of the vector lies in a map, and so the threshold that gives its cut
_LEAST_KEPT = np.nextafter(MEAN, np.float32(1))
_ROUNDING = 1e-8  # of the largest entry: entries that are as near as this are equal
_MANY_CORNERS, _MUCH_OVERLAP, _SMALL = 3, 0.5, 0.01


@dataclass(frozen=True, slots=True)
class GraphCut:
    """One side of a bipartition, and of it what hangs together."""

    height_RC: Float64[np.ndarray, "R C"]  # the vector, its mean at 0 and the side above it; NaN outside the picture
    object_RC: Bool[np.ndarray, "R C"]


def ncut_map(
    keys: Float[Tensor, "patches D"], valid: Bool[np.ndarray, "R C"], tau: float
) -> Float32[np.ndarray, "R C"]:
    """TokenCut's object as a soft map; see `soft_map`. NaN where a key of the picture is not finite."""
    inside = keys[torch.from_numpy(valid.ravel())]
    if not inside.isfinite().all():
        return np.full(valid.shape, np.nan, np.float32)
    cut = best_cut(key_graph(inside, tau), valid, by_corners=False)
    return np.zeros(valid.shape, np.float32) if cut is None else soft_map(cut, cut.object_RC)


def maskcut_maps(
    keys: Float[Tensor, "patches D"], valid: Bool[np.ndarray, "R C"], tau: float, instances: int
) -> Float32[np.ndarray, "N R C"]:
    """MaskCut's objects, each cut from the graph in which those before it are painted out; zero where there is none.

    As in the original an object is dropped if it is a hundredth of the picture or less, or overlaps the one before it
    by more than half; of what earlier objects hold it keeps nothing. A dropped object is not painted out, so the next
    cut is the same one, and then it stays if it was its overlap that dropped it: the one before it is now empty.
    """
    maps_NRC = np.zeros((instances, *valid.shape), np.float32)
    inside = keys[torch.from_numpy(valid.ravel())]
    if not inside.isfinite().all():
        return np.full_like(maps_NRC, np.nan)
    graph = key_graph(inside, tau)
    before_RC, taken_RC = np.zeros((2, *valid.shape), bool)
    cut = best_cut(graph, valid, by_corners=True)
    for instance in range(instances):
        if instance and before_RC.any():
            graph = graph.remove_patches(torch.from_numpy(before_RC[valid]))
            cut = best_cut(graph, valid, by_corners=True)
        if cut is None:
            break
        is_dropped = instance and (
            _overlap(before_RC, cut.object_RC) > _MUCH_OVERLAP or cut.object_RC.sum() <= _SMALL * valid.sum()
        )
        before_RC = np.zeros_like(valid) if is_dropped else cut.object_RC
        kept_RC = before_RC & ~taken_RC
        if kept_RC.any():
            maps_NRC[instance] = soft_map(cut, kept_RC)
        taken_RC |= kept_RC
    return maps_NRC


def soft_map(cut: GraphCut, kept: Bool[np.ndarray, "R C"]) -> Float32[np.ndarray, "R C"]:
    """The vector from 0 to 1, its mean at MEAN and its farthest entry at an end, so that `map > MEAN` is the kept
    patches: those of them that rounding put on the mean are lifted just above it, all others are at most on it.

    The scale is this project's own; the originals have masks alone. 0 outside the picture.
    """
    scaled_RC = (0.5 + cut.height_RC / (2 * np.nanmax(np.abs(cut.height_RC)))).astype(np.float32)
    limited_RC = np.where(kept, np.maximum(scaled_RC, _LEAST_KEPT), np.minimum(scaled_RC, MEAN))
    return np.nan_to_num(limited_RC)


def best_cut(graph: KeyGraph, valid: Bool[np.ndarray, "R C"], by_corners: bool) -> GraphCut | None:
    """None where there is none: too small a gap, or too few patches."""
    if len(graph.degree_T) < 3:
        return None
    found = second_eigenvector(graph, LEAST_GAP)
    return None if found.gap <= LEAST_GAP else cut_by_vector(found.vector_T.numpy(), valid, by_corners)


def cut_by_vector(vector: Float64[np.ndarray, " T"], valid: Bool[np.ndarray, "R C"], by_corners: bool) -> GraphCut:
    """The same for a vector and its negative."""
    vector = vector / np.abs(vector).max()
    vector = vector * np.sign(vector[_first_largest(np.abs(vector))])
    height_T = vector - vector.mean()
    if by_corners and (_corner_values(height_T, valid) > _ROUNDING).sum() >= _MANY_CORNERS:
        height_T = -height_T
    height_RC = np.full(valid.shape, np.nan)
    height_RC[valid] = height_T
    pieces_RC = np.zeros(valid.shape, np.int32)
    ndimage.label(height_RC > _ROUNDING, output=pieces_RC)
    return GraphCut(height_RC, pieces_RC == pieces_RC[valid][_first_largest(height_T)])


def _first_largest(values_T: np.ndarray) -> int:
    """Of the largest values, which rounding alone tells apart, the first."""
    return int(np.flatnonzero(values_T >= values_T.max() - _ROUNDING)[0])


def _corner_values(values_T: np.ndarray, valid_RC: np.ndarray) -> np.ndarray:
    """Of the first and last patch in the first and last row that have any picture."""
    rows = np.flatnonzero(valid_RC.any(axis=1))[[0, -1]]
    numbers_RC = np.cumsum(valid_RC.ravel()).reshape(valid_RC.shape) - 1
    return np.array([values_T[numbers_RC[row][valid_RC[row]][[0, -1]]] for row in rows])


def _overlap(one_RC: np.ndarray, other_RC: np.ndarray) -> float:
    """Intersection over union; `other` is not empty."""
    return (one_RC & other_RC).sum() / (one_RC | other_RC).sum()
