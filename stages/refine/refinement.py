"""From the soft maps of one picture to its label map.

Letters: K rows (soft maps) of the picture, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.errors import Reason, RowFailed
from ..attention.backgrounds import Background, Rows, RowThresholds, TwoScores, agreed, hard_labels, levels, soft_scores
from ..attention.local_classes import local_classes
from ..attention.object_classes import KnownClasses, object_labels
from .crf import PictureCrf
from .presets import CrfPreset

NO_FOREGROUND = "no_foreground"
_OBJECT = 1  # the class that rows without one have until they are given theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    background: Background
    crf: CrfPreset | None = None  # None: the label map of the background rule as it is


@dataclass(frozen=True, slots=True)
class RefinedClass:
    index: int
    score: float | None  # its mean soft score where the label map has it; None where that is nowhere
    area_px: int


@dataclass(frozen=True, slots=True)
class Refined:
    label_HW: UInt8[np.ndarray, "H W"]
    classes: tuple[RefinedClass, ...]  # in order of their index
    note: str = ""


def refine_picture(
    picture: UInt8[np.ndarray, "H W 3"],
    maps_KHW: Float32[np.ndarray, "K H W"],
    thresholds_K: Float64[np.ndarray, " K"],
    row_classes: Sequence[int],
    refinement: Refinement,
) -> Refined:
    """The label map of rows that have a class each (0 for the background's own). Raises RowFailed where a map or a
    threshold that is needed is not finite."""
    local = local_classes(row_classes)
    rows = Rows(maps_KHW, thresholds_K, local.labels_K)
    label_HW = local.named(_refined_labels(picture, rows, len(local.classes), refinement))
    maps_by_class = {
        index: [map_HW for map_HW, label in zip(maps_KHW, row_classes, strict=True) if label == index]
        for index in local.classes
    }
    return _noted(label_HW, [_measured(label_HW, index, maps) for index, maps in maps_by_class.items()])


def refine_objects(
    picture: UInt8[np.ndarray, "H W 3"],
    maps_KHW: Float32[np.ndarray, "K H W"],
    thresholds_K: Float64[np.ndarray, " K"],
    known: KnownClasses,
    refinement: Refinement,
) -> Refined:
    """The label map of rows without class: refined as one object, which is then given its classes. Scores are the
    object's, as that is what the rows say."""
    found = refine_picture(picture, maps_KHW, thresholds_K, [_OBJECT] * len(maps_KHW), refinement)
    named_HW = object_labels(found.label_HW == _OBJECT, known)
    label_HW = np.where(found.label_HW == IGNORE, np.uint8(IGNORE), named_HW)
    indices = [int(index) for index in np.unique(label_HW) if index not in (BACKGROUND, IGNORE)]
    return _noted(label_HW, [_measured(label_HW, index, list(maps_KHW)) for index in indices])


def _refined_labels(
    picture: UInt8[np.ndarray, "H W 3"], rows: Rows, num_classes: int, refinement: Refinement
) -> UInt8[np.ndarray, "H W"]:
    assert rows.maps_KHW.shape[1:] == picture.shape[:2], (rows.maps_KHW.shape, picture.shape)
    if not num_classes:
        return np.zeros(picture.shape[:2], np.uint8)
    _check_finite(rows, refinement.background)
    preset = refinement.crf
    if preset is None:
        return hard_labels(rows, refinement.background)
    crf = PictureCrf(picture, 1 + num_classes, preset)
    by_level = [
        crf.from_labels(hard_labels(rows, level))
        if preset.unary == "labels"
        else crf.from_scores(soft_scores(rows, level))
        for level in levels(refinement.background)
    ]
    return agreed(*by_level) if isinstance(refinement.background, TwoScores) else by_level[0]


def _check_finite(rows: Rows, background: Background) -> None:
    if not np.isfinite(rows.maps_KHW).all():
        raise RowFailed(Reason.NOT_FINITE, "a soft map holds NaN or infinity")
    if isinstance(background, RowThresholds) and not np.isfinite(rows.thresholds_K).all():
        raise RowFailed(Reason.NOT_FINITE, "the threshold of a soft map is NaN or infinity")


def _measured(label_HW: UInt8[np.ndarray, "H W"], index: int, maps: list[np.ndarray]) -> RefinedClass:
    is_class_HW = label_HW == index
    area_px = int(is_class_HW.sum())
    score_N = np.max([map_HW[is_class_HW] for map_HW in maps], axis=0)
    return RefinedClass(index, float(score_N.mean(dtype=np.float64)) if area_px else None, area_px)


def _noted(label_HW: UInt8[np.ndarray, "H W"], classes: list[RefinedClass]) -> Refined:
    has_foreground = any(each.area_px for each in classes)
    return Refined(label_HW, tuple(classes), "" if has_foreground else NO_FOREGROUND)
