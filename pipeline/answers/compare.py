"""Compares two artifacts about the same pictures: where they differ, and how they were made differently.

Letters: H W pixels, A B the values that the two artifacts give.

255 is undecided. Pixel agreement treats it as a value: two undecided pixels agree. Scores per class cover only the
pixels that both have decided; the share of undecided pixels is reported beside them.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, UInt8

from ...manifests.artifact.artifact import Artifact, open_artifact, source_of
from ...manifests.artifact.facts import class_table
from ...manifests.classes import IGNORE, refuse_other_class_table
from ...manifests.errors import InputError
from ...manifests.published.schema import class_names
from ...stages.evaluate.predictions import LabelMaps
from ...stages.maps.object_classes import NO_LABEL
from ...stages.scores.iou import Counts, class_iou, class_precision, class_recall, mean_iou, mean_of_known, nan_to_none
from .lineage import LineageDifference, lineage_differences

KINDS = "maps|labels|dataset"
_NAMED = 10  # ids listed of pictures that are not compared


@dataclass(frozen=True, slots=True)
class Side:
    at: str
    kind: str
    fingerprint: str
    pictures: int
    failed: Mapping[str, int]  # reason → pictures without a label map here, among those that both have
    alone: int  # pictures that the other lacks
    alone_ids: Sequence[str]  # the first of them


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """Over the pixels that both have decided; None where there are none."""

    label: int
    name: str
    iou: float | None
    kept_of_a: float | None  # share of A's pixels of the class that B gives it too
    kept_of_b: float | None
    pixels_a: int
    pixels_b: int


@dataclass(frozen=True, slots=True)
class PictureComparison:
    id: str
    iou: float  # mean over the values in either label map, including 255
    agreement: float  # the share of pixels with the same value


@dataclass(frozen=True, slots=True)
class Comparison:
    a: Side
    b: Side
    compared: int  # pictures
    other_size: int  # pictures not compared: their label maps have different sizes
    other_size_ids: Sequence[str]
    agreement: float | None  # None where nothing was compared
    undecided_a: float | None  # shares of all pixels
    undecided_b: float | None
    undecided_both: float | None
    miou: float | None
    miou_foreground: float | None
    classes: Sequence[ClassComparison]
    worst: Sequence[PictureComparison]  # with the lowest IoU
    matrix: Sequence[tuple[int, int, int]]  # value in A, value in B, pixels; without zeros
    differences: Sequence[LineageDifference]


@dataclass(slots=True)
class _Tally:
    worst_of: int
    pixels_AB: Int64[np.ndarray, "256 256"] = field(default_factory=lambda: np.zeros((256, 256), np.int64))
    compared: int = 0
    failed: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    other_size: list[str] = field(default_factory=list)
    worst: list[tuple[float, float, int, str]] = field(default_factory=list)  # a heap, the best of them first

    def add(self, identifier: str, a_HW: UInt8[np.ndarray, "H W"], b_HW: UInt8[np.ndarray, "H W"]) -> None:
        pairs = a_HW.ravel().astype(np.intp) * 256 + b_HW.ravel()
        pixels_AB = np.bincount(pairs, minlength=256 * 256).reshape(256, 256)
        self.pixels_AB += pixels_AB
        self.compared += 1
        entry = (-_value_iou(pixels_AB), -_agreement(pixels_AB), -self.compared, identifier)
        if len(self.worst) < self.worst_of:
            heapq.heappush(self.worst, entry)
        elif self.worst:
            heapq.heappushpop(self.worst, entry)


def compare(a: Artifact, b: Artifact, worst: int, images: Artifact | None = None) -> Comparison:
    """Reads files only, one picture at a time. `images` gives image-level labels for maps whose own images artifact
    was moved."""
    names = common_names(a, b)
    maps_a, maps_b = _label_maps(a, images), _label_maps(b, images)
    tally = _Tally(worst)
    alone_a, alone_b = [id_ for id_ in maps_a if id_ not in maps_b], [id_ for id_ in maps_b if id_ not in maps_a]
    for identifier in (id_ for id_ in maps_a if id_ in maps_b):
        _add_picture(tally, identifier, maps_a, maps_b)
    pixels_AB = tally.pixels_AB
    decided = _confusion_counts(pixels_AB)
    values = [(int(one), int(other), int(pixels_AB[one, other])) for one, other in np.argwhere(pixels_AB)]
    total = int(pixels_AB.sum())
    return Comparison(
        a=_side(a, maps_a, tally.failed[0], alone_a),
        b=_side(b, maps_b, tally.failed[1], alone_b),
        compared=tally.compared,
        other_size=len(tally.other_size),
        other_size_ids=tally.other_size[:_NAMED],
        agreement=_agreement(pixels_AB) if total else None,
        undecided_a=int(pixels_AB[IGNORE].sum()) / total if total else None,
        undecided_b=int(pixels_AB[:, IGNORE].sum()) / total if total else None,
        undecided_both=int(pixels_AB[IGNORE, IGNORE]) / total if total else None,
        miou=nan_to_none(mean_iou(decided, True)),
        miou_foreground=nan_to_none(mean_iou(decided, False)),
        classes=list(_classes(decided, names)),
        worst=[PictureComparison(id_, -iou, -same) for iou, same, _, id_ in sorted(tally.worst, reverse=True)],
        matrix=values,
        differences=lineage_differences(a, b),
    )


def _add_picture(tally: _Tally, identifier: str, maps_a: LabelMaps, maps_b: LabelMaps) -> None:
    reasons = maps_a.failure(identifier), maps_b.failure(identifier)
    for reason, failed in zip(reasons, tally.failed, strict=True):
        failed.update([reason] if reason else [])
    if any(reasons):
        return
    a_HW, b_HW = maps_a.prediction(identifier).label_HW, maps_b.prediction(identifier).label_HW
    assert a_HW is not None
    assert b_HW is not None
    if a_HW.shape != b_HW.shape:
        tally.other_size.append(identifier)
    else:
        tally.add(identifier, a_HW, b_HW)


def _label_maps(artifact: Artifact, images: Artifact | None) -> LabelMaps:
    num_classes = len(class_table(artifact))
    labels: dict[str, Sequence[int]] = {}
    if artifact.plan.kind == "maps" and _has_objects(artifact):
        images = images or open_artifact(source_of(artifact, "images"), "images")
        for batch in images.row_batches(["id", "labels"]):
            labels |= {row["id"]: row["labels"] or () for row in batch.to_pylist()}
        unknown = next((identifier for identifier in artifact.positions_by_id() if identifier not in labels), None)
        if unknown is not None:
            raise InputError(
                f"{images.place} has no row {unknown!r}, but {artifact.place} has maps of it; "
                "pass the images artifact that the maps were made from as --images"
            )
    return LabelMaps(artifact, labels, num_classes)


def _has_objects(maps: Artifact) -> bool:
    """Whether some maps have no class, so that the class must come from the picture's labels."""
    rows = (row for batch in maps.row_batches(["class", "note"]) for row in batch.to_pylist())
    return any(row["class"] is None and row["note"] != NO_LABEL for row in rows)


def common_names(a: Artifact, b: Artifact) -> dict[int, str]:
    """Class names; raises InputError if a class number has different names in the two."""
    ours, theirs = class_table(a), class_table(b)
    refuse_other_class_table(ours, theirs, (a.place, b.place), "compare artifacts of one class table")
    return class_names(theirs) | class_names(ours)


def _side(artifact: Artifact, maps: LabelMaps, failed: Mapping[str, int], alone: Sequence[str]) -> Side:
    return Side(
        at=artifact.place.uri,
        kind=artifact.plan.kind,
        fingerprint=artifact.plan.fingerprint,
        pictures=sum(1 for _ in maps),
        failed=dict(sorted(failed.items())),
        alone=len(alone),
        alone_ids=alone[:_NAMED],
    )


def _confusion_counts(pixels_AB: Int64[np.ndarray, "256 256"]) -> Counts:
    """The counts that scores are computed from, with A as ground truth and B as prediction."""
    kept_AB = pixels_AB[:IGNORE, :IGNORE]
    pixels_K3 = np.stack([kept_AB.diagonal(), kept_AB.sum(axis=0), kept_AB.sum(axis=1)], axis=-1)
    labels = np.flatnonzero(pixels_K3.any(axis=-1))
    return Counts(labels.astype(np.uint8), pixels_K3[labels])


def _classes(counts: Counts, names: Mapping[int, str]) -> Iterator[ClassComparison]:
    columns = class_iou(counts.pixels), class_recall(counts.pixels), class_precision(counts.pixels)
    for label, iou, of_a, of_b, pixels in zip(counts.classes.tolist(), *columns, counts.pixels, strict=True):
        name = "background" if label == 0 else names.get(label, "")
        both = (nan_to_none(iou), nan_to_none(of_a), nan_to_none(of_b))
        yield ClassComparison(label, name, *both, pixels_a=int(pixels[2]), pixels_b=int(pixels[1]))


def _agreement(pixels_AB: Int64[np.ndarray, "256 256"]) -> float:
    return int(np.trace(pixels_AB)) / int(pixels_AB.sum())


def _value_iou(pixels_AB: Int64[np.ndarray, "256 256"]) -> float:
    counts = np.stack([pixels_AB.diagonal(), pixels_AB.sum(axis=0), pixels_AB.sum(axis=1)], axis=-1)
    return float(mean_of_known(class_iou(counts)))
