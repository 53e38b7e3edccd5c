"""Finds objects by normalised cuts of a picture's key graph: one with TokenCut, several with MaskCut.

Letters: T valid patches, D key width, R C rows and columns of patches, N instances.

Sources: TokenCut, object_discovery.py, ncut and detect_box; MaskCut, CutLER's maskcut.py, maskcut_forward (Wang et al.,
CVPR 2023). Both cut at the mean of the second smallest eigenvector. The object is the connected piece (by sides) that
holds the largest entry. Differences from the sources:

- Padding is in no graph, corner or area. The originals have no padding.
- A graph whose second and third eigenvalue are within LEAST_GAP has no cut, because any mixture of the two vectors is
  as good; the originals take the one that LAPACK returns. A picture of fewer than three patches has no cut either.
- Either side rule can be chosen for either method; the originals' are "largest" for TokenCut and "corners" for MaskCut.
- The originals leave the vector's sign to LAPACK, and MaskCut's corner rule acts on one sign only. Here the largest
  entry is positive; among entries that are equal up to rounding, the first counts. Then a foreground with three or more
  of the picture's corners is exchanged for the other side.
- Patches on the mean, up to rounding, are background.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from ..choices import Side
from .eigenvectors import second_eigenvector
from .key_graph import KeyGraph, key_graph

LEAST_GAP = 1e-4
MEAN = np.float32(0.5)  # the vector's mean in a map, and so the threshold that gives the cut
_LEAST_KEPT = np.nextafter(MEAN, np.float32(1))
_ROUNDING = 1e-8  # share of the largest entry: closer entries count as equal
_MANY_CORNERS, _MUCH_OVERLAP, _SMALL = 3, 0.5, 0.01


@dataclass(frozen=True, slots=True)
class GraphCut:
    """One side of a bipartition, and its connected piece with the largest entry."""

    height_RC: Float64[np.ndarray, "R C"]  # the vector minus its mean, positive on this side; NaN outside the picture
    object_RC: Bool[np.ndarray, "R C"]


def ncut_map(
    keys: Float[Tensor, "patches D"], valid: Bool[np.ndarray, "R C"], tau: float, side: Side = "largest"
) -> Float32[np.ndarray, "R C"]:
    """TokenCut's object as a soft map; see `soft_map`. All NaN if a key of the picture is not finite."""
    inside = keys[torch.from_numpy(valid.ravel())]
    if not inside.isfinite().all():
        return np.full(valid.shape, np.nan, np.float32)
    cut = best_cut(key_graph(inside, tau), valid, side)
    return np.zeros(valid.shape, np.float32) if cut is None else soft_map(cut, cut.object_RC)


def maskcut_maps(
    keys: Float[Tensor, "patches D"], valid: Bool[np.ndarray, "R C"], tau: float, instances: int, side: Side = "corners"
) -> Float32[np.ndarray, "N R C"]:
    """MaskCut's objects, each cut from the graph after the object before it is painted out; zero if there is none.

    As in the original, an object is dropped if it covers at most a hundredth of the picture, or overlaps the object
    before it by more than half. It keeps no patch of an earlier object. A dropped object is not painted out, so the
    next cut is the same; it stays then if it was dropped for its overlap, because the object before it is now empty.
    """
    maps_NRC = np.zeros((instances, *valid.shape), np.float32)
    inside = keys[torch.from_numpy(valid.ravel())]
    if not inside.isfinite().all():
        return np.full_like(maps_NRC, np.nan)
    graph = key_graph(inside, tau)
    before_RC, taken_RC = np.zeros((2, *valid.shape), bool)
    cut = best_cut(graph, valid, side)
    for instance in range(instances):
        if instance and before_RC.any():
            graph = graph.remove_patches(torch.from_numpy(before_RC[valid]))
            cut = best_cut(graph, valid, side)
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
    """The vector scaled to 0–1, with its mean at MEAN; 0 outside the picture. `map > MEAN` gives the kept patches.

    The scale is this project's own; the originals have masks only.
    """
    scaled_RC = (0.5 + cut.height_RC / (2 * np.nanmax(np.abs(cut.height_RC)))).astype(np.float32)
    limited_RC = np.where(kept, np.maximum(scaled_RC, _LEAST_KEPT), np.minimum(scaled_RC, MEAN))
    return np.nan_to_num(limited_RC)


def best_cut(graph: KeyGraph, valid: Bool[np.ndarray, "R C"], side: Side) -> GraphCut | None:
    """None if the gap is too small or there are too few patches."""
    if len(graph.degree_T) < 3:
        return None
    eigenvector = second_eigenvector(graph, LEAST_GAP)
    return None if eigenvector.gap <= LEAST_GAP else cut_by_vector(eigenvector.vector_T.numpy(), valid, side)


def cut_by_vector(vector: Float64[np.ndarray, " T"], valid: Bool[np.ndarray, "R C"], side: Side) -> GraphCut:
    """A vector and its negative give the same cut."""
    vector = vector / np.abs(vector).max()
    vector = vector * np.sign(vector[_first_largest(np.abs(vector))])
    height_T = vector - vector.mean()
    if side == "corners" and (_corner_values(height_T, valid) > _ROUNDING).sum() >= _MANY_CORNERS:
        height_T = -height_T
    height_RC = np.full(valid.shape, np.nan)
    height_RC[valid] = height_T
    pieces_RC = np.zeros(valid.shape, np.int32)
    ndimage.label(height_RC > _ROUNDING, output=pieces_RC)
    return GraphCut(height_RC, pieces_RC == pieces_RC[valid][_first_largest(height_T)])


def _first_largest(values_T: np.ndarray) -> int:
    """The first of the values that equal the largest up to rounding."""
    return int(np.flatnonzero(values_T >= values_T.max() - _ROUNDING)[0])


def _corner_values(values_T: np.ndarray, valid_RC: np.ndarray) -> np.ndarray:
    """The values at the first and last patch of the first and last row that show the picture."""
    rows = np.flatnonzero(valid_RC.any(axis=1))[[0, -1]]
    numbers_RC = np.cumsum(valid_RC.ravel()).reshape(valid_RC.shape) - 1
    return np.array([values_T[numbers_RC[row][valid_RC[row]][[0, -1]]] for row in rows])


def _overlap(one_RC: np.ndarray, other_RC: np.ndarray) -> float:
    """Intersection over union; `other` is not empty."""
    return (one_RC & other_RC).sum() / (one_RC | other_RC).sum()
