"""Score a classifier of patches on pictures that it has not seen, beside the masks that it learned from.

Letters: B pictures, T patches in a grid of R rows and C columns, K classes, H W pixels.

Pictures are held out per class by the hash of their id, from those with ground truth that was not used for training.
Without classes in the dataset, foreground is scored.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import UInt8

from ...manifests.files.sealed import Json
from ..learning.draws import draw_per_class
from ..scores.floors import WHOLE, cell_counts, fit_ellipses, labels_to_paint, paint_ellipse
from ..scores.intervals import counts_interval
from ..scores.iou import Counts, as_foreground, mean_iou, pixel_counts, stack_counts
from ..scores.truth import GroundTruth
from ..scores.verdict import NO_OBJECTS
from ..students.feature_names import ONE_BLOCK
from ..students.features import Features
from ..students.linear import PatchClassifier, predict_labels
from .published import PublishedDataset

STUDENT = "the student"  # name of its line
HELD_OUT = 5  # one picture in five of each class
_AT_ONCE = 16

NamedCounts = tuple[str, Sequence[Counts]]


def ids_to_hold_out(
    published: PublishedDataset, truth: GroundTruth | None, fitted: frozenset[str], seed: int
) -> tuple[str, ...]:
    """`fitted` are pictures whose true masks were used to make the labels."""
    if truth is None:
        return ()
    left_out = fitted | published.ground_truth
    candidates = {
        identifier: labels or (0,)
        for identifier, labels in published.image_labels().items()
        if identifier in truth.ids and identifier not in left_out
    }
    return tuple(draw_per_class(candidates, lambda number: round(number / HELD_OUT), seed))


def score_classifier(
    classifier: PatchClassifier,
    features: Features,
    published: PublishedDataset,
    truth: GroundTruth | None,
    ids: Sequence[str],
) -> list[NamedCounts]:
    """Counts of each picture: the student, the masks that it learned from, and the floors."""
    if truth is None or not ids:
        return []
    learned, labels, nothing = [], [], []
    for identifier, label_HW in predictions(classifier, features, published, ids):
        true_HW = _truth_or_foreground(published, truth.mask_of_size(identifier, label_HW.shape, "dataset"))
        learned.append(pixel_counts(true_HW, label_HW))
        labels.append(pixel_counts(true_HW, published.mask(identifier)))
        nothing.append(pixel_counts(true_HW, np.zeros_like(label_HW)))
    return [
        (STUDENT, learned),
        (NO_OBJECTS, nothing),
        ("told the class: the dataset's masks of these pictures", labels),
        *_floors(published, truth, ids),
    ]


def predictions(
    classifier: PatchClassifier, features: Features, published: PublishedDataset, ids: Sequence[str]
) -> Iterator[tuple[str, UInt8[np.ndarray, "H W"]]]:
    """The predicted label map of each picture, at its size."""
    sight = features.sight
    for start in range(0, len(ids), _AT_ONCE):
        chunk = ids[start : start + _AT_ONCE]
        read = features.read(chunk, [ONE_BLOCK])
        with torch.no_grad():
            logits_BKT = classifier(read.fields[ONE_BLOCK][:, 1:])
        for identifier, logits_KT, box in zip(chunk, logits_BKT, read.boxes, strict=True):
            height, width = published.mask(identifier).shape
            logits_KRC = logits_KT.view(-1, *sight.grid).numpy()
            yield identifier, predict_labels(logits_KRC, (height, width), box, sight.patch)


def score_summary(lines: Sequence[NamedCounts], seed: int) -> dict[str, Json]:
    """Every line with its intervals."""
    if not lines:
        return {"pictures": 0, "lines": []}
    return {"pictures": len(lines[0][1]), "lines": [_line(name, counts, seed) for name, counts in lines]}


def _line(name: str, counts: Sequence[Counts], seed: int) -> dict[str, Json]:
    line: dict[str, Json] = {"name": name}
    for key, with_background in {"miou": True, "miou_foreground": False}.items():
        statistic = partial(mean_iou, with_background=with_background)
        line[key] = counts_interval(stack_counts(counts), statistic, seed=seed).as_json()
    return line


def _floors(published: PublishedDataset, truth: GroundTruth, ids: Sequence[str]) -> Iterator[NamedCounts]:
    """Guesses that look at no picture but know its class, which the student does not."""
    classes, cells = [], []
    for identifier in ids:
        true_HW = _truth_or_foreground(published, truth.mask(identifier))
        classes.append(sorted(set(np.unique(true_HW).tolist()) - {0, 255}))
        cells.append(cell_counts(true_HW))
    ellipses = fit_ellipses(ids, classes, np.stack(cells))
    labels = labels_to_paint(classes)
    names = ("told the class: all foreground", "told the class: best fixed ellipse, fitted on other classes")
    for name, shapes in zip(names, ([WHOLE] * len(ids), ellipses), strict=True):
        counts = []
        for identifier, label, shape in zip(ids, labels, shapes, strict=True):
            true_HW = _truth_or_foreground(published, truth.mask(identifier))
            counts.append(pixel_counts(true_HW, paint_ellipse((true_HW.shape[0], true_HW.shape[1]), label, shape)))
        yield name, counts


def _truth_or_foreground(published: PublishedDataset, true_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    return true_HW if published.table else as_foreground(true_HW)
