"""What maps, labels and datasets say of each picture, as label maps that can be judged.

Letters: K soft maps of a picture, H W its pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.artifact import Artifact, open_artifact
from ...manifests.checkpoints import seen_ids
from ...manifests.classes import IGNORE
from ...manifests.errors import MaskmillError
from ...manifests.palette import decode_label_map
from ...manifests.plan import listing_batches
from ...manifests.published import FRAME
from ...manifests.sealed import Json
from ..attention.backgrounds import Rows, RowThresholds, hard_labels
from ..attention.local_classes import local_classes
from ..attention.object_classes import NO_LABEL, KnownClasses, object_labels
from ..attention.upsampling import upsampled

_OBJECT = 1


@dataclass(frozen=True, slots=True)
class Predicted:
    """One picture. Without a label map it failed; one that is not kept was dropped by a quality rule."""

    id: str
    label_HW: UInt8[np.ndarray, "H W"] | None
    is_kept: bool = True
    is_truth: bool = False  # its label map is the ground truth itself
    soft_KHW: Float32[np.ndarray, "K H W"] | None = None  # of maps
    map_classes: Sequence[int] = ()


def predictions(artifact: Artifact, labels: Mapping[str, Sequence[int]], num_classes: int) -> Iterator[Predicted]:
    """Every picture of an artifact, in its order; `labels` are image-level, by id."""
    if artifact.plan.kind == "maps":
        return _of_maps(artifact, labels, num_classes)
    return _of_labels(artifact) if artifact.plan.kind == "labels" else _of_dataset(artifact)


def fitted_on(artifact: Artifact) -> frozenset[str]:
    """The pictures whose masks something that an artifact was made with has seen."""
    seen: frozenset[str] = frozenset()
    for each in artifact.plan.inputs:
        try:
            above = open_artifact(each.place(artifact.place))
        except MaskmillError:
            continue  # a shared dataset comes without what it was made of
        seen |= seen_ids(above, "masks") if above.plan.kind == "checkpoint" else frozenset()
        seen |= fitted_on(above)
    return seen


def _of_labels(artifact: Artifact) -> Iterator[Predicted]:
    position = 0
    for batch in artifact.row_batches(["id", "status"]):
        for row in batch.to_pylist():
            png = artifact.cells("label", [position])[0] if row["status"] == "ok" else None
            yield Predicted(row["id"], None if png is None else decode_label_map(png))
            position += 1


def _of_dataset(artifact: Artifact) -> Iterator[Predicted]:
    group = artifact.plan.group_of(FRAME)
    columns = ["id", "status", "kept", "mask"]
    truth = _truth_in(artifact)
    for unit in artifact.plan.layout(group).units():
        for batch in artifact.frame(FRAME, unit.index).iter_batches(256, columns=columns):
            for row in batch.to_pylist():
                label_HW = decode_label_map(row["mask"]["bytes"]) if row["status"] == "ok" else None
                yield Predicted(row["id"], label_HW, bool(row["kept"]), row["id"] in truth)


def _truth_in(dataset: Artifact) -> frozenset[str]:
    """As was planned: of a row without classes, no class says that it is the truth."""
    rows = (row for batch in listing_batches(dataset.place, dataset.plan) for row in batch.to_pylist())
    return frozenset(row["id"] for row in rows if row["is_truth"])


def _of_maps(artifact: Artifact, labels: Mapping[str, Sequence[int]], num_classes: int) -> Iterator[Predicted]:
    columns = ["id", "status", "note", "class", "threshold", "box", "height", "width"]
    for identifier, positions in artifact.positions_by_id().items():
        rows = artifact.rows_at(positions, columns).to_pylist()
        if any(row["status"] != "ok" for row in rows):
            yield Predicted(identifier, None)
        elif all(row["note"] == NO_LABEL for row in rows):  # nothing was looked for
            size = (rows[0]["height"], rows[0]["width"])
            yield Predicted(identifier, np.full(size, IGNORE, np.uint8))
        else:
            known = KnownClasses(num_classes=num_classes, image_labels=labels.get(identifier, ()))
            yield _cut(artifact, identifier, positions, rows, known)


def _cut(
    artifact: Artifact,
    identifier: str,
    positions: Sequence[int],
    rows: Sequence[Mapping[str, Json]],
    known: KnownClasses,
) -> Predicted:
    """The maps of a picture at its size, cut at their own thresholds as refine does without a refiner."""
    facts, first = artifact.plan.facts, rows[0]
    maps_KHW = upsampled(
        artifact.read("map", positions),
        (first["height"], first["width"]),
        tuple(first["box"]),
        tuple(facts["patch"]),
        facts["align_corners"],
    )
    classes = [_OBJECT if row["class"] is None else row["class"] for row in rows]
    local = local_classes(classes)
    thresholds = np.array([row["threshold"] for row in rows])
    label_HW = local.named(hard_labels(Rows(maps_KHW, thresholds, local.labels_K), RowThresholds()))
    if any(row["class"] is not None for row in rows):
        return Predicted(identifier, label_HW, soft_KHW=maps_KHW, map_classes=classes)
    only = list(known.image_labels) if len(known.image_labels) == 1 else [_OBJECT] if not known.num_classes else []
    label_HW = object_labels(label_HW == _OBJECT, known)
    return Predicted(identifier, label_HW, soft_KHW=maps_KHW if only else None, map_classes=only * len(rows))
