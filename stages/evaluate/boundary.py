"""Boundary F-measure: how much of each outline lies within a tolerance of the other.

Letters: H W pixels, Q points (row, column), K classes, sets images summed or resampled side by side.

Csurka, Larlus & Perronnin, What is a good evaluation measure for semantic segmentation? (BMVC 2013): per image and
class, precision is the share of the predicted boundary near the true one, and recall the converse. Their tolerance is
0.75 % of the diagonal. As in Matlab's bfscore, the images of a class are averaged first and the classes after, so that
classes weigh the same, as in mIoU. Where the paper is silent, this project's rules are:

- A boundary pixel lies in the class and has one of its four neighbours outside. The edge of the picture is not a
  boundary: a whole painted picture has none.
- Background is left out, because it has the same boundary. 255 belongs to no class.
- A class in neither map has no value, and a class in only one scores 0. In both it scores 1 if neither map has a
  boundary, and 0 if only one has.
- A predicted boundary pixel where the truth is 255 counts if it is near, and is ignored if it is not: VOC's void runs
  along the true outline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from ...manifests.classes import BACKGROUND, IGNORE
from ..scores.iou import mean_of_known

TOLERANCE = 0.02  # of the diagonal


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryScores:
    """One image: F of each foreground class in its truth or prediction."""

    classes: UInt8[np.ndarray, " K"]
    f: Float64[np.ndarray, " K"]


def boundary_scores(
    truth_HW: UInt8[np.ndarray, "H W"], predicted_HW: UInt8[np.ndarray, "H W"], tolerance: float = TOLERANCE
) -> BoundaryScores:
    """F of one image; for all classes as one, pass both maps through `as_foreground`."""
    assert truth_HW.shape == predicted_HW.shape, f"{predicted_HW.shape} scored against {truth_HW.shape}"
    present = np.union1d(truth_HW, predicted_HW[truth_HW != IGNORE])
    classes = present[(present != BACKGROUND) & (present != IGNORE)]
    reach_px = tolerance * math.hypot(*truth_HW.shape)
    f = [_boundary_f(truth_HW, predicted_HW, int(label), reach_px) for label in classes]
    return BoundaryScores(classes, np.array(f, np.float64))


def stack_boundaries(images: Sequence[BoundaryScores]) -> tuple[UInt8[np.ndarray, " K"], Float64[np.ndarray, "N K 2"]]:
    """Classes, and for each image the F of each class and whether it has one: columns to sum or resample."""
    classes = np.unique(np.concatenate([image.classes for image in images]) if images else np.empty(0, np.uint8))
    sums_NK2 = np.zeros((len(images), len(classes), 2))
    for row_K2, image in zip(sums_NK2, images, strict=True):
        row_K2[np.searchsorted(classes, image.classes)] = np.stack([image.f, np.ones_like(image.f)], axis=-1)
    return classes, sums_NK2


def class_boundary_f(sums: Float64[np.ndarray, "*sets K 2"]) -> Float64[np.ndarray, "*sets K"]:
    """The mean over the images that have the class; NaN if none has."""
    num_images = sums[..., 1]
    return np.divide(sums[..., 0], num_images, out=np.full(num_images.shape, np.nan), where=num_images > 0)


def mean_boundary_f(sums: Float64[np.ndarray, "*sets K 2"]) -> Float64[np.ndarray, "*sets"]:
    """The mean over classes of their mean over images; NaN without classes."""
    return mean_of_known(class_boundary_f(sums))


def _boundary_f(
    truth_HW: UInt8[np.ndarray, "H W"], predicted_HW: UInt8[np.ndarray, "H W"], label: int, reach_px: float
) -> float:
    in_truth_HW, in_predicted_HW = truth_HW == label, predicted_HW == label
    if not (in_truth_HW.any() and in_predicted_HW[truth_HW != IGNORE].any()):
        return 0.0
    true_Q2, predicted_Q2 = _boundary(in_truth_HW), _boundary(in_predicted_HW)
    is_near_Q = _is_near(predicted_Q2, true_Q2, reach_px)
    counts_Q = is_near_Q | (truth_HW[predicted_Q2[:, 0], predicted_Q2[:, 1]] != IGNORE)
    if not len(true_Q2) or not counts_Q.any():
        return float(len(true_Q2) == counts_Q.sum())
    precision, recall = is_near_Q.sum() / counts_Q.sum(), _is_near(true_Q2, predicted_Q2, reach_px).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask_HW: Bool[np.ndarray, "H W"]) -> Int64[np.ndarray, "Q 2"]:
    outside_HW = ~mask_HW
    beside_HW = np.zeros_like(mask_HW)
    beside_HW[1:] |= outside_HW[:-1]
    beside_HW[:-1] |= outside_HW[1:]
    beside_HW[:, 1:] |= outside_HW[:, :-1]
    beside_HW[:, :-1] |= outside_HW[:, 1:]
    return np.argwhere(mask_HW & beside_HW)


def _is_near(
    points_Q2: Int64[np.ndarray, "Q 2"], others_Q2: Int64[np.ndarray, "others 2"], reach_px: float
) -> Bool[np.ndarray, " Q"]:
    """Which points have one of the others within reach."""
    if not len(others_Q2) or not len(points_Q2):
        return np.zeros(len(points_Q2), bool)
    # The tree leaves out points at the bound and beyond it.
    distances, _ = cKDTree(others_Q2).query(points_Q2, distance_upper_bound=reach_px + 1)
    return np.asarray(distances <= reach_px)
