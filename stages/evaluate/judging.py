"""Every picture with ground truth judged once, in the counts that all tables are made of.

Letters: H W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ...manifests.errors import InputError
from ..scores.floors import WHOLE, Ellipse, cell_counts, fit_ellipses, labels_to_paint, paint_ellipse
from ..scores.iou import Counts, as_foreground, pixel_counts
from ..scores.truth import GroundTruth
from .boundary import BoundaryScores, boundary_scores
from .predictions import Predicted
from .threshold_sweep import sweep_counts

THRESHOLDS = np.linspace(0.05, 0.95, 19, dtype=np.float32)  # of the sweep


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """What is asked of each picture."""

    class_agnostic: bool
    boundary: bool
    sweep: bool

    def relabel(self, label_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        return as_foreground(label_HW) if self.class_agnostic else label_HW


@dataclass(frozen=True, slots=True)
class ScoredPicture:
    """One picture with ground truth."""

    id: str
    classes: frozenset[int]  # in its truth
    outcome: str  # kept, dropped or failed
    counts: Counts  # 255 in the prediction is an error
    without_undecided: Counts  # or left out
    boundary: BoundaryScores | None
    sweep: Counts | None


@dataclass(frozen=True, slots=True)
class Floor:
    """What a guess scores that looks at no picture."""

    name: str
    counts: Sequence[Counts]
    boundaries: Sequence[BoundaryScores]


def score_pictures(found: Iterable[Predicted], truth: GroundTruth, view: ScoringOptions) -> Iterator[ScoredPicture]:
    """Pictures without ground truth are passed over; what was dropped or failed is all background."""
    for each in found:
        truth_HW = truth.get(each.id)
        if truth_HW is None:
            continue
        _refuse_other_size(each, truth_HW)
        classes = frozenset(np.unique(truth_HW).tolist()) - {0, 255}
        true_HW = view.relabel(truth_HW)
        if each.label_HW is None or not each.is_kept:
            outcome, nothing_HW = "failed" if each.label_HW is None else "dropped", np.zeros_like(true_HW)
            counts = pixel_counts(true_HW, nothing_HW)
            boundary = boundary_scores(true_HW, nothing_HW) if view.boundary else None
            yield ScoredPicture(each.id, classes, outcome, counts, counts, boundary, None)
            continue
        label_HW = view.relabel(each.label_HW)
        yield ScoredPicture(
            each.id,
            classes,
            "kept",
            pixel_counts(true_HW, label_HW),
            pixel_counts(true_HW, label_HW, "excluded"),
            boundary_scores(true_HW, label_HW) if view.boundary else None,
            _threshold_counts(each, true_HW, view) if view.sweep else None,
        )


def floors(pictures: Sequence[ScoredPicture], truth: GroundTruth, view: ScoringOptions) -> list[Floor]:
    """All foreground, and the best ellipse fitted on other classes, on the same pictures."""
    classes = [sorted(each.classes) for each in pictures]
    cells = np.stack([cell_counts(truth.mask(each.id)) for each in pictures])
    ellipses = fit_ellipses([each.id for each in pictures], classes, cells)
    return [
        _floor("all foreground", pictures, [WHOLE] * len(pictures), truth, view),
        _floor("best fixed ellipse, fitted on other classes", pictures, ellipses, truth, view),
    ]


def _refuse_other_size(each: Predicted, truth_HW: UInt8[np.ndarray, "H W"]) -> None:
    if each.label_HW is not None and each.label_HW.shape != truth_HW.shape:
        (height, width), (true_height, true_width) = each.label_HW.shape, truth_HW.shape
        raise InputError(
            f"{each.id} is {width}×{height} pixels where it is judged and {true_width}×{true_height} in its ground "
            "truth; pass as --against the images that it was made from, or make it anew from these"
        )


def _floor(
    name: str, pictures: Sequence[ScoredPicture], ellipses: Sequence[Ellipse], truth: GroundTruth, view: ScoringOptions
) -> Floor:
    labels = labels_to_paint([sorted(each.classes) for each in pictures])
    counts, boundaries = [], []
    for each, label, ellipse in zip(pictures, labels, ellipses, strict=True):
        truth_HW = truth.mask(each.id)
        true_HW = view.relabel(truth_HW)
        guess_HW = view.relabel(paint_ellipse((truth_HW.shape[0], truth_HW.shape[1]), label, ellipse))
        counts.append(pixel_counts(true_HW, guess_HW))
        if view.boundary:
            boundaries.append(boundary_scores(true_HW, guess_HW))
    return Floor(name, counts, boundaries)


def _threshold_counts(each: Predicted, true_HW: UInt8[np.ndarray, "H W"], view: ScoringOptions) -> Counts | None:
    if each.soft_KHW is None:
        return None
    rows = [row for row, index in enumerate(each.map_classes) if index]  # a row without class looked for nothing
    classes = [1 if view.class_agnostic else each.map_classes[row] for row in rows]
    return sweep_counts(true_HW, each.soft_KHW[rows], classes, THRESHOLDS)
