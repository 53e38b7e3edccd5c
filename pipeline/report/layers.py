"""A picture of the report and what lies over it: the truth, soft maps, and label maps before and after each stage.

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
    """One picture as the page has it."""

    size: tuple[int, int] = (3, 4)  # rows and columns of the small picture; where nothing is known, some
    picture: str = ""  # a data URL
    why_not: str = ""  # there is no picture
    layers: dict[str, str] = field(default_factory=dict)  # key → data URL
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Maps:
    artifact: Artifact
    label_maps: LabelMaps
    cut: Layer
    heat: Layer


class Layers:
    """Of the pictures of one artifact, the head. What it was made from counts only where it is still what was read, so
    that nothing lies over a picture that it was not made for."""

    def __init__(
        self, head: Artifact, artifacts: Iterable[Artifact], rows: Sequence[ReportRow], images_root: str
    ) -> None:
        self._head = head
        above = [*_above(head, {each.digest: each for each in artifacts}), head]
        self._images = next((each for each in above if each.plan.kind == "images"), None)
        self._has_truth = self._images is not None and "mask" in self._images.plan.fields
        self._positions = _positions(self._images, rows)
        self._originals = Originals(head, self._images, self._positions, images_root)
        labels = _image_labels(self._images, self._positions, rows)
        maps = [each for each in above if each.plan.kind == "maps"]
        self._maps = [_maps(number, each, labels) for number, each in enumerate(maps)]
        self._labels = Layer(HEAD, "labels", "mask") if head.plan.kind in ("dataset", "labels") else None

    @property
    def layers(self) -> list[Layer]:
        """In the order in which they are made; the last is what the pictures are shown with."""
        truth = [Layer(TRUTH, "ground truth", "mask")] if self._has_truth else []
        soft = [layer for each in self._maps for layer in (each.heat, each.cut)]
        return [*truth, *soft, *([self._labels] if self._labels else [])]

    @property
    def changes(self) -> list[tuple[str, Layer, Layer, Layer]]:
        """Each stage that changes what was there: its name, before, after, and the soft map before."""
        by_digest = {each.artifact.digest: each for each in self._maps}
        found = [
            (each.artifact.plan.stage, before.heat, each.heat, before.heat)
            for each in self._maps
            if (before := by_digest.get(_read_maps(each.artifact))) is not None
        ]
        last = by_digest.get(_read_maps(self._head))
        return [*found, ("refine", last.cut, self._labels, last.heat)] if last and self._labels else found

    def of(self, row: ReportRow) -> PictureLayers:
        shown = PictureLayers()
        masks = {layer: label_HW for layer, label_HW in self._masks(row, shown.faults) if label_HW is not None}
        picture_HW3, shown.why_not = self._originals.of(row)
        sizes = [each.shape for each in masks.values()]
        if picture_HW3 is not None:
            sizes.insert(1 if self._labels in masks else 0, picture_HW3.shape[:2])
        if not sizes:
            return shown
        shown.size = small_size((sizes[0][0], sizes[0][1]))
        if picture_HW3 is not None and picture_HW3.shape[:2] == sizes[0]:
            shown.picture = picture_url(picture_HW3)
        elif picture_HW3 is not None:
            shown.why_not = "the picture has another size than its labels"
        for layer, label_HW in masks.items():
            if label_HW.shape == sizes[0]:
                shown.layers[layer.key] = mask_url(label_HW)
            else:
                shown.faults.append(f"{layer.name}: of another size than the labels, and left out")
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
    """What cannot be read is said with the picture, and the rest shown."""
    try:
        return function(*arguments)
    except (MaskmillError, RowFailed) as error:
        faults.append(str(error))
        return None


def _above(head: Artifact, by_digest: Mapping[str, Artifact]) -> list[Artifact]:
    """Everything that the head was made from and that is still the same, each behind what it was made from itself."""
    found: list[Artifact] = []
    for each in head.plan.inputs:
        if each.digest in by_digest:
            one = by_digest[each.digest]
            found += [a for a in (*_above(one, by_digest), one) if a not in found]
    return found


def _read_maps(artifact: Artifact) -> str:
    """The digest of the maps that an artifact was made from; others may have told it classes."""
    return next((each.digest for each in artifact.plan.inputs if each.role == "maps"), "")


def _positions(images: Artifact | None, rows: Sequence[ReportRow]) -> dict[str, int]:
    if images is None:
        return {}
    try:
        return dict(zip([row.id for row in rows], images.positions([row.id for row in rows]), strict=True))
    except KeyError:  # a head that is not of these images
        return {}


def _image_labels(
    images: Artifact | None, positions: Mapping[str, int], rows: Sequence[ReportRow]
) -> dict[str, Sequence[int]]:
    if images is None or not positions:
        return {row.id: row.labels for row in rows}
    found = images.rows_at(list(positions.values()), ["labels"]).to_pylist()
    return {row["id"]: row["labels"] or () for row in found}


def _maps(number: int, artifact: Artifact, labels: Mapping[str, Sequence[int]]) -> _Maps:
    """A stage's maps, as they are and cut."""
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
    """The highest of a picture's soft maps."""
    if row.id not in maps.label_maps or maps.label_maps.failure(row.id):
        return None
    positions = maps.label_maps.positions(row.id)
    rows = maps.artifact.rows_at(positions, ["note", "box", "height", "width"]).to_pylist()
    if all(each["note"] == NO_LABEL for each in rows):
        return None
    size = small_size((rows[0]["height"], rows[0]["width"]), HEAT_PX)
    soft_Khw = maps_at_size(maps.artifact.read("map", positions), rows[0], MapsFacts.of(maps.artifact), size)
    return heat_url(soft_Khw.max(axis=0))
