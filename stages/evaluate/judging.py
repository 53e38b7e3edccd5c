"""Every picture with ground truth is scored once, as the counts that all tables are made of.

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

NUM_FLOORS = 2
THRESHOLDS = np.linspace(0.05, 0.95, 19, dtype=np.float32)  # of the sweep


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """What is computed for each picture."""

    class_agnostic: bool
    boundary: bool
    sweep: bool

    def relabel(self, label_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        return as_foreground(label_HW) if self.class_agnostic else label_HW


@dataclass(frozen=True, slots=True)
class ScoredPicture:
    id: str
    classes: frozenset[int]  # in its truth
    outcome: str  # kept, dropped or failed
    counts: Counts  # 255 in the prediction counts as an error
    without_undecided: Counts  # 255 in the prediction is left out
    boundary: BoundaryScores | None
    sweep: Counts | None


@dataclass(frozen=True, slots=True)
class Floor:
    """What a guess scores without looking at any picture."""

    name: str
    counts: Sequence[Counts]
    boundaries: Sequence[BoundaryScores]


def score_pictures(
    predictions: Iterable[Predicted], truth: GroundTruth, view: ScoringOptions
) -> Iterator[ScoredPicture]:
    """Skips pictures without ground truth; pictures that were dropped or failed count as background."""
    for predicted in predictions:
        truth_HW = truth.get(predicted.id)
        if truth_HW is None:
            continue
        _refuse_other_size(predicted, truth_HW)
        true_HW = view.relabel(truth_HW)
        label_HW, outcome = np.zeros_like(true_HW), "failed" if predicted.label_HW is None else "dropped"
        if predicted.label_HW is not None and predicted.is_kept:
            label_HW, outcome = view.relabel(predicted.label_HW), "kept"
        yield ScoredPicture(
            predicted.id,
            frozenset(np.unique(truth_HW).tolist()) - {0, 255},
            outcome,
            pixel_counts(true_HW, label_HW),
            pixel_counts(true_HW, label_HW, "excluded"),
            boundary_scores(true_HW, label_HW) if view.boundary else None,
            _threshold_counts(predicted, true_HW, view) if view.sweep and outcome == "kept" else None,
        )


def floors(pictures: Sequence[ScoredPicture], truth: GroundTruth, view: ScoringOptions) -> list[Floor]:
    """All foreground, and the best ellipse fitted on other classes, on the same pictures."""
    classes = [sorted(picture.classes) for picture in pictures]
    cells = np.stack([cell_counts(truth.mask(picture.id)) for picture in pictures])
    ellipses = fit_ellipses([picture.id for picture in pictures], classes, cells)
    return [
        _floor("all foreground", pictures, [WHOLE] * len(pictures), truth, view),
        _floor("best fixed ellipse, fitted on other classes", pictures, ellipses, truth, view),
    ]


def _refuse_other_size(predicted: Predicted, truth_HW: UInt8[np.ndarray, "H W"]) -> None:
    if predicted.label_HW is not None and predicted.label_HW.shape != truth_HW.shape:
        (height, width), (true_height, true_width) = predicted.label_HW.shape, truth_HW.shape
        raise InputError(
            f"the mask of {predicted.id} has another size than its ground truth: found {width}×{height} pixels, "
            f"expected {true_width}×{true_height}; pass as --against the images that it was made from, or make it again"
        )


def _floor(
    name: str, pictures: Sequence[ScoredPicture], ellipses: Sequence[Ellipse], truth: GroundTruth, view: ScoringOptions
) -> Floor:
    labels = labels_to_paint([sorted(picture.classes) for picture in pictures])
    counts, boundaries = [], []
    for picture, label, ellipse in zip(pictures, labels, ellipses, strict=True):
        truth_HW = truth.mask(picture.id)
        true_HW = view.relabel(truth_HW)
        guess_HW = view.relabel(paint_ellipse((truth_HW.shape[0], truth_HW.shape[1]), label, ellipse))
        counts.append(pixel_counts(true_HW, guess_HW))
        if view.boundary:
            boundaries.append(boundary_scores(true_HW, guess_HW))
    return Floor(name, counts, boundaries)


def _threshold_counts(predicted: Predicted, true_HW: UInt8[np.ndarray, "H W"], view: ScoringOptions) -> Counts | None:
    if predicted.soft_KHW is None:
        return None
    rows = [row for row, index in enumerate(predicted.map_classes) if index]  # rows without a class have no object
    classes = [1 if view.class_agnostic else predicted.map_classes[row] for row in rows]
    return sweep_counts(true_HW, predicted.soft_KHW[rows], classes, THRESHOLDS)
