"""Assigns classes to objects that were found without a class.

Letters: H W pixels, K class maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from skimage.measure import label as numbered_segments

from ...manifests.classes import IGNORE

NO_LABEL = "no_label"  # note of a row without a known class to search for
NO_STRUCTURE = "no_structure"  # note of a row whose map is constant
_ONLY_CLASS = 1  # "object", in a dataset without classes


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownClasses:
    """What else is known about the classes of a picture."""

    num_classes: int  # of the dataset
    image_labels: Sequence[int]
    maps_KHW: Float32[np.ndarray, "K H W"] | None = None  # of a class-specific method, at picture size
    map_classes: Sequence[int] = ()


def object_labels(is_object_HW: Bool[np.ndarray, "H W"], known: KnownClasses) -> UInt8[np.ndarray, "H W"]:
    """The label map of an object mask: 1 if the dataset has no classes, or the picture's only class.

    With several classes each segment (8-connected pixels) gets the class whose map has the highest mean in it. Without
    maps, and on a tie, it is 255.
    """
    if known.num_classes == 0:
        return np.where(is_object_HW, np.uint8(_ONLY_CLASS), np.uint8(0))
    if len(known.image_labels) == 1:
        return np.where(is_object_HW, np.uint8(known.image_labels[0]), np.uint8(0))
    if known.maps_KHW is None or not len(known.maps_KHW):
        return np.where(is_object_HW, np.uint8(IGNORE), np.uint8(0))
    segment_HW = np.asarray(numbered_segments(is_object_HW, connectivity=2))  # type: ignore[no-untyped-call]
    return _best_classes(segment_HW, known.maps_KHW, known.map_classes)[segment_HW]


def _best_classes(
    segment_HW: np.ndarray, class_maps_KHW: Float32[np.ndarray, "K H W"], map_classes: Sequence[int]
) -> UInt8[np.ndarray, " segments"]:
    """One class per segment number; number 0 is background. Sums rank like means, since a segment has one area."""
    segment_N = segment_HW.ravel()
    sums_KS = np.array([np.bincount(segment_N, weights=map_HW.ravel()) for map_HW in class_maps_KHW])
    best_S = np.asarray(map_classes, np.uint8)[sums_KS.argmax(axis=0)]
    best_S[(sums_KS == sums_KS.max(axis=0)).sum(axis=0) > 1] = IGNORE
    best_S[0] = 0
    return best_S
