"""Upsamples the maps of a picture and cuts them at their own thresholds, as refine does without a refiner.

Letters: K soft maps of a picture, R C rows and columns of patches, H W its pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.files.sealed import Json
from .background_rules import RowThresholds
from .backgrounds import PictureMaps, hard_labels
from .local_classes import local_classes
from .object_classes import KnownClasses, object_labels
from .upsampling import upsample_maps

_OBJECT = 1


@dataclass(frozen=True, slots=True)
class CutMaps:
    label_HW: UInt8[np.ndarray, "H W"]
    soft_KHW: Float32[np.ndarray, "K H W"] | None  # None if the maps have no known class
    map_classes: Sequence[int]


def cut_maps(
    maps_KRC: Float32[np.ndarray, "K R C"],
    rows: Sequence[Mapping[str, Json]],
    facts: Mapping[str, Json],
    known: KnownClasses,
) -> CutMaps:
    """`rows` holds class, threshold, box, height and width of each map; `facts` are the facts of the artifact."""
    first = rows[0]
    maps_KHW = upsample_maps(
        maps_KRC,
        (first["height"], first["width"]),
        tuple(first["box"]),
        tuple(facts["patch"]),
        facts["align_corners"],
    )
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
