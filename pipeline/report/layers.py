"""A picture of the report and its overlays: ground truth, soft maps, and label maps before and after each stage.

Letters: H W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts, class_table
from ...manifests.errors import MaskmillError, RowFailed
from ...manifests.pictures.palette import decode_label_map
from ...manifests.published.frames import frame_row
from ...stages.evaluate.predictions import LabelMaps
from ...stages.maps.cutting import maps_at_size
from ...stages.maps.object_classes import NO_LABEL
from .artifact_rows import ReportRow
from .originals import Originals
from .thumbnails import HEAT_PX, heat_url, mask_url, picture_url, small_size

T = TypeVar("T")
LabelMap = UInt8[np.ndarray, "H W"]
TRUTH, HEAD = "truth", "head"


@dataclass(frozen=True, slots=True)
class Layer:
    key: str
    name: str
    kind: Literal["mask", "heat"]


@dataclass(slots=True)
class PictureLayers:
    size: tuple[int, int] = (3, 4)  # rows and columns of the small picture; a default if unknown
    picture: str = ""  # a data URL
    why_not: str = ""  # why there is no picture
    layers: dict[str, str] = field(default_factory=dict)  # key → data URL
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Maps:
    artifact: Artifact
    label_maps: LabelMaps
    cut: Layer
    heat: Layer


class Layers:
    """The layers of the pictures of one artifact, the head. Inputs that have changed since are left out, so that no
    layer covers a picture that it was not made for."""

    def __init__(
        self, head: Artifact, artifacts: Iterable[Artifact], rows: Sequence[ReportRow], images_root: str
    ) -> None:
        self._head = head
        above = [*_above(head, {one.digest: one for one in artifacts}), head]
        self._images = next((one for one in above if one.plan.kind == "images"), None)
        self._has_truth = self._images is not None and "mask" in self._images.plan.fields
        self._positions = _positions(self._images, rows)
        self._originals = Originals(head, self._images, self._positions, images_root)
        labels = _image_labels(self._images, self._positions, rows)
        maps = [one for one in above if one.plan.kind == "maps"]
        self._maps = [_maps(number, one, labels) for number, one in enumerate(maps)]
        self._labels = Layer(HEAD, "labels", "mask") if head.plan.kind in ("dataset", "labels") else None

    @property
    def layers(self) -> list[Layer]:
        """In the order in which they are made. Pictures are shown with the last."""
        truth = [Layer(TRUTH, "ground truth", "mask")] if self._has_truth else []
        soft = [layer for maps in self._maps for layer in (maps.heat, maps.cut)]
        return [*truth, *soft, *([self._labels] if self._labels else [])]

    @property
    def changes(self) -> list[tuple[str, Layer, Layer, Layer]]:
        """Each stage that changes maps or labels: its name, before, after, and the soft map before."""
        by_digest = {maps.artifact.digest: maps for maps in self._maps}
        changes = [
            (maps.artifact.plan.stage, before.heat, maps.heat, before.heat)
            for maps in self._maps
            if (before := by_digest.get(_read_maps(maps.artifact))) is not None
        ]
        last = by_digest.get(_read_maps(self._head))
        return [*changes, ("refine", last.cut, self._labels, last.heat)] if last and self._labels else changes

    def of(self, row: ReportRow) -> PictureLayers:
        shown = PictureLayers()
        masks = {layer: label_HW for layer, label_HW in self._masks(row, shown.faults) if label_HW is not None}
        picture_HW3, shown.why_not = self._originals.of(row)
        sizes = [label_HW.shape for label_HW in masks.values()]
        if picture_HW3 is not None:
            sizes.insert(1 if self._labels in masks else 0, picture_HW3.shape[:2])
        if not sizes:
            return shown
        shown.size = small_size((sizes[0][0], sizes[0][1]))
        if picture_HW3 is not None and picture_HW3.shape[:2] == sizes[0]:
            shown.picture = picture_url(picture_HW3)
        elif picture_HW3 is not None:
            shown.why_not = "the picture and its labels differ in size"
        for layer, label_HW in masks.items():
            if label_HW.shape == sizes[0]:
                shown.layers[layer.key] = mask_url(label_HW)
            else:
                shown.faults.append(f"{layer.name}: left out, its size differs from the labels")
        for maps in self._maps:
            if url := _call_or_note(shown.faults, _heat, maps, row):
                shown.layers[maps.heat.key] = url
        return shown

    def _masks(self, row: ReportRow, faults: list[str]) -> Iterator[tuple[Layer, LabelMap | None]]:
        if self._labels and row.status not in ("failed", "upstream"):
            yield self._labels, _call_or_note(faults, _label_map, self._head, row)
        if self._images is not None and self._has_truth and row.id in self._positions:
            yield (
                Layer(TRUTH, "ground truth", "mask"),
                _call_or_note(faults, _truth, self._images, self._positions[row.id]),
            )
        for maps in self._maps:
            yield maps.cut, _call_or_note(faults, _cut, maps, row)


def _call_or_note(faults: list[str], function: Callable[..., T], *arguments: object) -> T | None:
    """The result, or None with the error in `faults`, which is shown with the picture."""
    try:
        return function(*arguments)
    except (MaskmillError, RowFailed) as error:
        faults.append(str(error))
        return None


def _above(head: Artifact, by_digest: Mapping[str, Artifact]) -> list[Artifact]:
    """The unchanged artifacts that the head was made from, each after its own inputs."""
    above: list[Artifact] = []
    for read in head.plan.inputs:
        if read.digest in by_digest:
            artifact = by_digest[read.digest]
            above += [one for one in (*_above(artifact, by_digest), artifact) if one not in above]
    return above


def _read_maps(artifact: Artifact) -> str:
    """The digest of the maps that an artifact was made from, as opposed to maps that gave it classes."""
    return next((read.digest for read in artifact.plan.inputs if read.role == "maps"), "")


def _positions(images: Artifact | None, rows: Sequence[ReportRow]) -> dict[str, int]:
    if images is None:
        return {}
    try:
        return dict(zip([row.id for row in rows], images.positions([row.id for row in rows]), strict=True))
    except KeyError:  # the head was not made from these images
        return {}


def _image_labels(
    images: Artifact | None, positions: Mapping[str, int], rows: Sequence[ReportRow]
) -> dict[str, Sequence[int]]:
    if images is None or not positions:
        return {row.id: row.labels for row in rows}
    return {row["id"]: row["labels"] or () for row in images.rows_at(list(positions.values()), ["labels"]).to_pylist()}


def _maps(number: int, artifact: Artifact, labels: Mapping[str, Sequence[int]]) -> _Maps:
    stage, classes = artifact.plan.stage, class_table(artifact)
    return _Maps(
        artifact,
        LabelMaps(artifact, labels, len(classes)),
        Layer(f"cut{number}", f"{stage}, cut", "mask"),
        Layer(f"heat{number}", f"{stage}, soft map", "heat"),
    )


def _label_map(head: Artifact, row: ReportRow) -> LabelMap | None:
    if head.plan.kind == "labels":
        (png,) = head.cells("label", [row.position])
    else:
        png = (frame_row(head, row.position, ["mask"])["mask"] or {}).get("bytes")
    return None if png is None else decode_label_map(png)


def _truth(images: Artifact, position: int) -> LabelMap | None:
    (png,) = images.cells("mask", [position])
    return None if png is None else decode_label_map(png)


def _cut(maps: _Maps, row: ReportRow) -> LabelMap | None:
    return maps.label_maps.prediction(row.id).label_HW if row.id in maps.label_maps else None


def _heat(maps: _Maps, row: ReportRow) -> str | None:
    """The maximum of a picture's soft maps."""
    if row.id not in maps.label_maps or maps.label_maps.failure(row.id):
        return None
    positions = maps.label_maps.positions(row.id)
    rows = maps.artifact.rows_at(positions, ["note", "box", "height", "width"]).to_pylist()
    if all(one["note"] == NO_LABEL for one in rows):
        return None
    size = small_size((rows[0]["height"], rows[0]["width"]), HEAT_PX)
    soft_Khw = maps_at_size(maps.artifact.read("map", positions), rows[0], MapsFacts.of(maps.artifact), size)
    return heat_url(soft_Khw.max(axis=0))
