"""Makes the label map of a picture from its soft maps.

Letters: K rows (soft maps) of the picture, L its labels, H W pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.errors import Reason, RowFailed
from ..maps.background_rules import BackgroundRule, RowThresholds, TwoScores
from ..maps.backgrounds import PictureMaps, hard_labels, highest_labels, join_levels, levels, soft_scores
from ..maps.local_classes import LocalClasses, local_classes
from ..maps.object_classes import KnownClasses, object_labels
from .crf import PictureCrf
from .pieces import tidy_labels
from .presets import CrfPreset, JointBilateralPreset, Smoother
from .smoothing import smooth_scores

NO_FOREGROUND = "no_foreground"
_OBJECT = 1  # provisional class of rows without a class


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How maps become labels. An upsampler takes them from their patches to the picture, where a crf or smoother
    refines labels or scores; without an upsampler they are interpolated by the rule of their method."""

    background: BackgroundRule
    crf: CrfPreset | None = None
    smoother: Smoother | None = None
    upsampler: JointBilateralPreset | None = None
    device: str = "cpu"  # of smoother and upsampler
    min_piece: int = 0  # pixels; a smaller piece of a class gets the label around it
    fill_holes: int = 0  # pixels; a larger hole stays

    @property
    def needs_pictures(self) -> bool:
        return any(preset is not None for preset in (self.crf, self.smoother, self.upsampler))


@dataclass(frozen=True, slots=True)
class RefinedClass:
    index: int
    score: float | None  # mean soft score over the pixels of the class; None without pixels
    area_px: int


@dataclass(frozen=True, slots=True)
class Refined:
    label_HW: UInt8[np.ndarray, "H W"]
    classes: tuple[RefinedClass, ...]  # in order of their index
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unrefined:
    """A picture, its soft maps and the classes of their rows."""

    picture: UInt8[np.ndarray, "H W 3"]
    rows: PictureMaps
    classes: LocalClasses
    known: KnownClasses | None = None  # for rows without class, which are refined as one object

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and number of labels: pictures of one shape can be smoothed together."""
        return *self.picture.shape[:2], 1 + len(self.classes.classes)


def prepare_picture(
    picture: UInt8[np.ndarray, "H W 3"],
    maps_KHW: Float32[np.ndarray, "K H W"],
    thresholds_K: Float64[np.ndarray, " K"],
    row_classes: Sequence[int],
    background: BackgroundRule,
) -> Unrefined:
    """Prepares rows with a class each (0 for the background's own). Raises RowFailed if a map or a needed threshold is
    not finite."""
    assert maps_KHW.shape[1:] == picture.shape[:2], (maps_KHW.shape, picture.shape)
    local = local_classes(row_classes)
    rows = PictureMaps(maps_KHW, thresholds_K, local.labels_K)
    if local.classes:
        _check_finite(rows, background)
    return Unrefined(picture, rows, local)


def prepare_objects(
    picture: UInt8[np.ndarray, "H W 3"],
    maps_KHW: Float32[np.ndarray, "K H W"],
    thresholds_K: Float64[np.ndarray, " K"],
    known: KnownClasses,
    background: BackgroundRule,
) -> Unrefined:
    """Prepares rows without class."""
    return replace(prepare_picture(picture, maps_KHW, thresholds_K, [_OBJECT] * len(maps_KHW), background), known=known)


def refine_batch(pictures: Sequence[Unrefined], refinement: Refinement) -> list[Refined]:
    """The label map of each picture; with a smoother, all pictures must have one shape."""
    if refinement.smoother is None or not pictures[0].classes.classes:
        return [_name_classes(unrefined, _local_labels(unrefined, refinement), refinement) for unrefined in pictures]
    background_levels = levels(refinement.background)
    scores = [np.stack([soft_scores(unrefined.rows, level) for level in background_levels]) for unrefined in pictures]
    smoothed = smooth_scores(
        [unrefined.picture for unrefined in pictures], scores, refinement.smoother, refinement.device
    )
    by_level = ([highest_labels(scores_LHW) for scores_LHW in scores_SLHW] for scores_SLHW in smoothed)
    return [
        _name_classes(unrefined, _combine_levels(labels, refinement), refinement)
        for unrefined, labels in zip(pictures, by_level, strict=True)
    ]


def _local_labels(unrefined: Unrefined, refinement: Refinement) -> UInt8[np.ndarray, "H W"]:
    """Labels local to the picture, without a smoother."""
    rows, num_classes, preset = unrefined.rows, len(unrefined.classes.classes), refinement.crf
    if not num_classes:
        return np.zeros(unrefined.picture.shape[:2], np.uint8)
    if preset is None:
        return hard_labels(rows, refinement.background)
    crf = PictureCrf(unrefined.picture, 1 + num_classes, preset)
    by_level = [
        crf.from_labels(hard_labels(rows, level))
        if preset.unary == "labels"
        else crf.from_scores(soft_scores(rows, level))
        for level in levels(refinement.background)
    ]
    return _combine_levels(by_level, refinement)


def _combine_levels(by_level: Sequence[UInt8[np.ndarray, "H W"]], refinement: Refinement) -> UInt8[np.ndarray, "H W"]:
    return join_levels(*by_level) if isinstance(refinement.background, TwoScores) else by_level[0]


def _check_finite(rows: PictureMaps, background: BackgroundRule) -> None:
    if not np.isfinite(rows.maps_KHW).all():
        raise RowFailed(Reason.NOT_FINITE, "a soft map holds NaN or infinity")
    if isinstance(background, RowThresholds) and not np.isfinite(rows.thresholds_K).all():
        raise RowFailed(Reason.NOT_FINITE, "the threshold of a soft map is NaN or infinity")


def _name_classes(unrefined: Unrefined, local_HW: UInt8[np.ndarray, "H W"], refinement: Refinement) -> Refined:
    """Replaces local labels by class indices, tidies their pieces and measures each class."""
    label_HW, maps_KHW = unrefined.classes.to_class_indices(local_HW), unrefined.rows.maps_KHW
    if unrefined.known is not None:
        named_HW = object_labels(label_HW == _OBJECT, unrefined.known)
        label_HW = np.where(label_HW == IGNORE, np.uint8(IGNORE), named_HW)
    label_HW = tidy_labels(label_HW, refinement.min_piece, refinement.fill_holes)
    if unrefined.known is not None:
        indices = [int(index) for index in np.unique(label_HW) if index not in (BACKGROUND, IGNORE)]
        classes = [_measure_class(label_HW, index, maps_KHW) for index in indices]
    else:
        classes = [
            _measure_class(label_HW, index, [maps_KHW[row] for row in np.flatnonzero(unrefined.rows.labels_K == label)])
            for label, index in enumerate(unrefined.classes.classes, start=1)
        ]
    has_foreground = any(measured.area_px for measured in classes)
    return Refined(label_HW, tuple(classes), "" if has_foreground else NO_FOREGROUND)


def _measure_class(label_HW: UInt8[np.ndarray, "H W"], index: int, maps: Iterable[np.ndarray]) -> RefinedClass:
    is_class_HW = label_HW == index
    area_px = int(is_class_HW.sum())
    score_N = np.max([map_HW[is_class_HW] for map_HW in maps], axis=0)
    return RefinedClass(index, float(score_N.mean(dtype=np.float64)) if area_px else None, area_px)
