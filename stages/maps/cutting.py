"""Upsamples the maps of a picture and cuts them at their own thresholds, as refine does without a refiner.

Letters: K soft maps of a picture, R C rows and columns of patches, H W its pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts
from ...manifests.artifact.fields import Field
from ...manifests.files.sealed import Json
from .background_rules import RowThresholds
from .backgrounds import PictureMaps, hard_labels
from .local_classes import local_classes
from .object_classes import KnownClasses, object_labels
from .upsampling import upsample_maps

_OBJECT = 1
KEY = ("id", "class", "instance")  # what tells rows of maps apart
COLUMNS: Mapping[str, str] = {  # of a maps artifact
    "class": "int64",
    "instance": "int64",
    "threshold": "float64",
    "foreground": "float64",  # share of the picture's patches above the threshold
    "box": "ints",  # of the picture in the view, in pixels: top, left, bottom, right
    "height": "int64",  # of the picture
    "width": "int64",
}
# What else is needed to make a label of a map.
CUT = Field(name="cut", kind="columns", columns=("class", "instance", "threshold", "box", "height", "width", "note"))


@dataclass(frozen=True, slots=True)
class CutMaps:
    label_HW: UInt8[np.ndarray, "H W"]
    soft_KHW: Float32[np.ndarray, "K H W"] | None  # None if the maps have no known class
    map_classes: Sequence[int]


def has_classes(maps: Artifact) -> bool:
    """Whether any map is of a class; maps of objects found without a class are not."""
    return any(batch.column("class").null_count < len(batch) for batch in maps.row_batches(["class"]))


def maps_at_size(
    maps_KRC: Float32[np.ndarray, "K R C"],
    row: Mapping[str, Json],
    facts: MapsFacts,
    size: tuple[int, int] | None = None,
) -> Float32[np.ndarray, "K H W"]:
    """The maps of one picture at `size`, by default its own; `row` has the box, height and width that they share."""
    size = size or (row["height"], row["width"])
    return upsample_maps(maps_KRC, size, tuple(row["box"]), facts.patch, facts.align_corners)


def cut_maps(
    maps_KRC: Float32[np.ndarray, "K R C"],
    rows: Sequence[Mapping[str, Json]],
    facts: MapsFacts,
    known: KnownClasses,
) -> CutMaps:
    """`rows` have class, threshold, box, height and width of each map; `facts` are those of its artifact."""
    maps_KHW = maps_at_size(maps_KRC, rows[0], facts)
    classes = [_OBJECT if row["class"] is None else row["class"] for row in rows]
    local = local_classes(classes)
    thresholds = np.array([row["threshold"] for row in rows])
    label_HW = local.to_class_indices(hard_labels(PictureMaps(maps_KHW, thresholds, local.labels_K), RowThresholds()))
    if any(row["class"] is not None for row in rows):
        return CutMaps(label_HW, maps_KHW, classes)
    only_class = (
        list(known.image_labels) if len(known.image_labels) == 1 else [_OBJECT] if not known.num_classes else []
    )
    label_HW = object_labels(label_HW == _OBJECT, known)
    return CutMaps(label_HW, maps_KHW if only_class else None, only_class * len(rows))
