"""Intersection over union of label maps, from pixel counts per image and class.

Letters: H W pixels, K classes that occur (ascending, including background), sets the images, resamples or thresholds
counted side by side, T P classes of truth and of prediction.

Pixels are summed over all images first. Two means over classes are in use, and they differ where a class is predicted
that no truth has:

mean_iou         over the classes in truth or in a prediction, so that such a class adds a zero: the `nanmean` of
                 WeakTr's evaluation.py
mean_iou_truth   over the classes in truth; such a class lowers only the scores of those whose pixels it took: the
                 `valid` classes of ToCo's and AFA's utils/evaluate.py and of CLIP-ES' eval_cam.py

Truth of 255 is always excluded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE

# A predicted 255: "error" counts the pixel as a false negative of its true class; "excluded" drops it from truth too,
# as ToCo's pseudo_scores does.
Undecided = Literal["error", "excluded"]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Pixels per class: of one image or a sum ("K 3"), or of several images ("N K 3")."""

    classes: UInt8[np.ndarray, " K"]
    pixels: Int64[np.ndarray, "*sets K 3"]  # intersection, predicted, true


@dataclass(frozen=True, slots=True)
class ClassScores:
    """None where the denominator is 0: not in truth (recall), not predicted (precision), neither (IoU)."""

    label: int
    iou: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class IouScores:
    miou: float | None  # None where no class occurs
    miou_foreground: float | None
    miou_truth_classes: float | None
    classes: tuple[ClassScores, ...]


def pixel_counts(
    truth_HW: UInt8[np.ndarray, "H W"], predicted_HW: UInt8[np.ndarray, "H W"], undecided: Undecided = "error"
) -> Counts:
    """The pixel counts of one image."""
    assert truth_HW.shape == predicted_HW.shape, f"{predicted_HW.shape} judged by {truth_HW.shape}"
    pairs = truth_HW.astype(np.intp) * 256 + predicted_HW
    joint_TP = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)[:IGNORE]
    if undecided == "excluded":
        joint_TP = joint_TP[:, :IGNORE]
    columns = (joint_TP.diagonal(), joint_TP.sum(axis=0)[:IGNORE], joint_TP.sum(axis=1))
    return _drop_absent_classes(np.stack(columns, axis=-1))


def as_foreground(label_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Every class as class 1, for class-agnostic scores; 255 stays."""
    table = np.ones(256, np.uint8)
    table[BACKGROUND], table[IGNORE] = BACKGROUND, IGNORE
    return table[label_HW]


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """The sum over images, set by set."""
    total = np.zeros((IGNORE, 3), np.int64)
    for image in counts:
        added = np.zeros((*image.pixels.shape[:-2], IGNORE, 3), np.int64)
        added[..., image.classes, :] = image.pixels
        total = total + added
    return _drop_absent_classes(total)


def stack_counts(counts: Sequence[Counts]) -> Counts:
    """Images side by side ("N K 3"), over the classes that occur in any of them."""
    occurs = np.zeros(IGNORE, bool)
    for image in counts:
        occurs[image.classes] = True
    classes = np.flatnonzero(occurs).astype(np.uint8)
    position = np.cumsum(occurs) - 1
    pixels_NK3 = np.zeros((len(counts), len(classes), 3), np.int64)
    for row_K3, image in zip(pixels_NK3, counts, strict=True):
        row_K3[position[image.classes]] = image.pixels
    return Counts(classes, pixels_NK3)


def class_iou(pixels: Int64[np.ndarray, "*sets K 3"]) -> Float64[np.ndarray, "*sets K"]:
    """NaN where a class is in neither truth nor prediction."""
    both, predicted, true = np.moveaxis(pixels, -1, 0)
    return _share(both, predicted + true - both)


def class_precision(pixels: Int64[np.ndarray, "*sets K 3"]) -> Float64[np.ndarray, "*sets K"]:
    """NaN where a class is never predicted."""
    return _share(pixels[..., 0], pixels[..., 1])


def class_recall(pixels: Int64[np.ndarray, "*sets K 3"]) -> Float64[np.ndarray, "*sets K"]:
    """NaN where a class is not in the truth."""
    return _share(pixels[..., 0], pixels[..., 2])


def mean_iou(counts: Counts, with_background: bool) -> Float64[np.ndarray, "*sets"]:
    """The mean over the classes that occur in truth or prediction of each set; NaN without any."""
    used = slice(None) if with_background else counts.classes != BACKGROUND
    return mean_of_known(class_iou(counts.pixels[..., used, :]))


def mean_iou_truth(counts: Counts) -> Float64[np.ndarray, "*sets"]:
    """The mean over the classes that occur in the truth of each set, background included; NaN without any."""
    return mean_of_known(np.where(counts.pixels[..., 2] > 0, class_iou(counts.pixels), np.nan))


def mean_of_known(values: Float64[np.ndarray, "*sets K"]) -> Float64[np.ndarray, "*sets"]:
    """The mean without NaN; NaN if there are no other values."""
    is_known = ~np.isnan(values)
    return _share(np.asarray(np.where(is_known, values, 0).sum(axis=-1)), np.asarray(is_known.sum(axis=-1)))


def iou_scores(counts: Counts) -> IouScores:
    """The scores of one image or of a sum."""
    columns = (class_iou(counts.pixels), class_precision(counts.pixels), class_recall(counts.pixels))
    rows = zip(counts.classes, *columns, strict=True)
    return IouScores(
        nan_to_none(mean_iou(counts, True)),
        nan_to_none(mean_iou(counts, False)),
        nan_to_none(mean_iou_truth(counts)),
        tuple(ClassScores(int(row[0]), nan_to_none(row[1]), nan_to_none(row[2]), nan_to_none(row[3])) for row in rows),
    )


def nan_to_none(value: float | np.ndarray) -> float | None:
    """A number that JSON can hold: None for NaN."""
    return None if np.isnan(value) else float(value)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _drop_absent_classes(pixels: Int64[np.ndarray, "*sets 255 3"]) -> Counts:
    sets = tuple(range(pixels.ndim - 2))
    classes = np.flatnonzero(pixels[..., 1:].any(axis=(*sets, -1)))
    return Counts(classes.astype(np.uint8), pixels[..., classes, :].astype(np.int64))
