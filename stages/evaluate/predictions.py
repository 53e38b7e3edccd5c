"""The predictions of maps, labels and datasets, as one label map per picture.

Letters: K soft maps of a picture, H W its pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts
from ...manifests.classes import IGNORE
from ...manifests.pictures.palette import decode_label_map
from ...manifests.published.frames import frame_row
from ...manifests.published.schema import ground_truth_ids
from ..maps.cutting import cut_maps
from ..maps.object_classes import NO_LABEL, KnownClasses


@dataclass(frozen=True, slots=True)
class Predicted:
    """One picture. It failed if it has no label map; a quality rule dropped it if it is not kept."""

    id: str
    label_HW: UInt8[np.ndarray, "H W"] | None
    is_kept: bool = True
    is_truth: bool = False  # its label map is the ground truth itself
    soft_KHW: Float32[np.ndarray, "K H W"] | None = None  # for maps only
    map_classes: Sequence[int] = ()


class LabelMaps:
    """The label maps of an artifact by id; `labels` are image-level, by id."""

    def __init__(self, artifact: Artifact, labels: Mapping[str, Sequence[int]], num_classes: int) -> None:
        self._artifact, self._labels, self._num_classes = artifact, labels, num_classes
        self._facts = MapsFacts.of(artifact) if artifact.plan.kind == "maps" else None
        self._positions = artifact.positions_by_id()
        self._truth = ground_truth_ids(artifact) if artifact.plan.kind == "dataset" else frozenset()

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._positions

    def positions(self, identifier: str) -> Sequence[int]:
        """Of a picture's rows in the row list."""
        return self._positions[identifier]

    def failure(self, identifier: str) -> str:
        """Why there is no label map, or ""."""
        failures = self._artifact.failures()
        return next((failures[at] for at in self._positions[identifier] if at in failures), "")

    def prediction(self, identifier: str) -> Predicted:
        positions = self._positions[identifier]
        if self.failure(identifier):
            return Predicted(identifier, None)
        if self._facts is not None:
            return self._prediction_from_maps(identifier, positions, self._facts)
        if self._artifact.plan.kind == "labels":
            (png,) = self._artifact.cells("label", positions)
            return Predicted(identifier, None if png is None else decode_label_map(png))
        row = frame_row(self._artifact, positions[0], ["kept", "mask"])
        label_HW = decode_label_map(row["mask"]["bytes"])
        return Predicted(identifier, label_HW, bool(row["kept"]), identifier in self._truth)

    def _prediction_from_maps(self, identifier: str, positions: Sequence[int], facts: MapsFacts) -> Predicted:
        columns = ["note", "class", "threshold", "box", "height", "width"]
        rows = self._artifact.rows_at(positions, columns).to_pylist()
        if all(row["note"] == NO_LABEL for row in rows):  # no class was looked for
            return Predicted(identifier, np.full((rows[0]["height"], rows[0]["width"]), IGNORE, np.uint8))
        known = KnownClasses(num_classes=self._num_classes, image_labels=self._labels.get(identifier, ()))
        cut = cut_maps(self._artifact.read("map", positions), rows, facts, known)
        return Predicted(identifier, cut.label_HW, soft_KHW=cut.soft_KHW, map_classes=cut.map_classes)


def predictions(artifact: Artifact, labels: Mapping[str, Sequence[int]], num_classes: int) -> Iterator[Predicted]:
    """Every picture of an artifact, in its order."""
    maps = LabelMaps(artifact, labels, num_classes)
    return (maps.prediction(identifier) for identifier in maps)
