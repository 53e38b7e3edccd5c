"""What every background threshold would have scored, with soft maps at the size of the picture.

Letters: H W pixels, C maps of an image, J thresholds, K classes that occur, L thresholds passed (0 to J), W winners.

The rule is the field's: background is a constant t, and the highest map wins where it is above t. This project's own:
where two classes tie for the highest above t, the pixel is 255 (as in refining), which counts as an error. A threshold
chosen this way has seen the ground truth, and the result says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE
from ..scores.iou import Counts, class_iou, mean_iou


@dataclass(frozen=True, slots=True)
class BestThreshold:
    threshold: float
    miou: float
    chosen_on: str = "ground truth"


@dataclass(frozen=True, slots=True)
class BestClassThreshold:
    label: int
    threshold: float
    iou: float


def sweep_counts(
    truth_HW: UInt8[np.ndarray, "H W"],
    soft_CHW: Float32[np.ndarray, "C H W"],
    labels: Sequence[int],
    thresholds: Float32[np.ndarray, " J"],
) -> Counts:
    """The counts of one image at each of the ascending thresholds ("J K 3").

    `labels` are the classes of the maps; several maps may share one. To score without classes, pass `as_foreground` of
    the truth and class 1 for every map.
    """
    assert (np.diff(thresholds) > 0).all(), "thresholds ascend"
    assert np.isfinite(soft_CHW).all(), "soft maps are finite"
    assert len(labels) == len(soft_CHW), f"{len(labels)} classes have {len(soft_CHW)} maps"
    assert all(BACKGROUND < label < IGNORE for label in labels), f"classes of maps are {labels}"
    decided_HW = truth_HW != IGNORE
    true = truth_HW[decided_HW]
    winner, passed = _winners(soft_CHW[:, decided_HW], labels, thresholds)
    classes = np.unique(np.concatenate([[BACKGROUND], true, labels])).astype(np.uint8)
    num_K, num_L = len(classes), len(thresholds) + 1
    position = np.full(256, num_K, np.intp)  # where 255 goes
    position[classes] = np.arange(num_K)
    cells = (position[true] * (num_K + 1) + position[winner]) * num_L + passed
    joint_KWL = np.bincount(cells, minlength=num_K * (num_K + 1) * num_L).reshape(num_K, num_K + 1, num_L)
    return Counts(classes, _counts_at_thresholds(joint_KWL))


def best_threshold(
    thresholds: Float32[np.ndarray, " J"], counts: Counts, with_background: bool = True
) -> BestThreshold | None:
    """The threshold with the highest mIoU, the lowest of equals; None if no class occurs at any threshold."""
    miou_J = mean_iou(counts, with_background)
    if np.isnan(miou_J).all():
        return None
    best = int(np.nanargmax(miou_J))
    return BestThreshold(float(thresholds[best]), float(miou_J[best]))


def best_class_thresholds(thresholds: Float32[np.ndarray, " J"], counts: Counts) -> list[BestClassThreshold]:
    """For each class in truth that has a map, the threshold with its highest IoU, the lowest of equals.

    A class takes the pixels where its map is the highest and above the threshold, so that its IoU does not depend on
    the thresholds of others. `refine` lets the second highest class have a pixel where the highest is below its own.
    """
    iou_JK = class_iou(counts.pixels)
    is_wanted_K = (
        (counts.classes != BACKGROUND) & counts.pixels[0, :, 2].astype(bool) & counts.pixels[0, :, 1].astype(bool)
    )
    best_K = np.nan_to_num(iou_JK, nan=-1).argmax(axis=0)
    return [
        BestClassThreshold(int(counts.classes[k]), float(thresholds[best_K[k]]), float(iou_JK[best_K[k], k]))
        for k in np.flatnonzero(is_wanted_K)
    ]


def _winners(
    soft_CP: Float32[np.ndarray, "C P"], labels: Sequence[int], thresholds: Float32[np.ndarray, " J"]
) -> tuple[UInt8[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Per pixel the class of the highest map (255 for a tie), and the number of thresholds that it is above."""
    if not labels:
        return np.full(soft_CP.shape[1], IGNORE, np.uint8), np.zeros(soft_CP.shape[1], np.int64)
    highest = soft_CP.max(axis=0)
    label_C = np.asarray(labels, np.uint8)
    winner = label_C[soft_CP.argmax(axis=0)]
    is_tied = ((soft_CP == highest) & (label_C[:, None] != winner)).any(axis=0)  # two maps of one class are not a tie
    winner[is_tied] = IGNORE
    return winner, np.searchsorted(thresholds, highest, side="left").astype(np.int64)


def _counts_at_thresholds(joint_KWL: Int64[np.ndarray, "K W L"]) -> Int64[np.ndarray, "J K 3"]:
    """Background, which is the first class, takes every pixel that is not above the threshold."""
    total = joint_KWL.sum(axis=2)
    below_KWJ = joint_KWL.cumsum(axis=2)[..., :-1]
    above_KWJ = total[..., None] - below_KWJ
    both_KJ = np.diagonal(above_KWJ[:, :-1]).T.copy()
    predicted_KJ = above_KWJ[:, :-1].sum(axis=0)
    both_KJ[0], predicted_KJ[0] = below_KWJ[0].sum(axis=0), below_KWJ.sum(axis=(0, 1))
    true_KJ = np.broadcast_to(total.sum(axis=1)[:, None], both_KJ.shape)
    return np.stack([both_KJ, predicted_KJ, true_KJ], axis=-1).swapaxes(0, 1)
