"""Which class an object has that was found without one.

Letters: H W pixels, K class maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from skimage.measure import label as numbered_segments

from ...manifests.classes import IGNORE

NO_LABEL = "no_label"  # the note of a row of which no class was known to look for
NO_STRUCTURE = "no_structure"  # of a row whose map has one value
_ONLY_CLASS = 1  # of a dataset that names none: object


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownClasses:
    """What else is known of the classes of a picture."""

    num_classes: int  # of the dataset
    image_labels: Sequence[int]
    maps_KHW: Float32[np.ndarray, "K H W"] | None = None  # of a method that tells classes apart, at the picture's size
    map_classes: Sequence[int] = ()


def object_labels(is_object_HW: Bool[np.ndarray, "H W"], known: KnownClasses) -> UInt8[np.ndarray, "H W"]:
    """The label map of an object mask: the picture's only class, or 1 where the dataset names no classes, or else for
    each segment, of pixels that touch by side or corner, the class whose map is highest in it on average.

    Without maps, and where two classes are equally high, it is 255.
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
    """One class per number; number 0 is no segment and has 0. Sums rank as means do: one segment, one area."""
    segment_N = segment_HW.ravel()
    sums_KS = np.array([np.bincount(segment_N, weights=map_HW.ravel()) for map_HW in class_maps_KHW])
    best_S = np.asarray(map_classes, np.uint8)[sums_KS.argmax(axis=0)]
    best_S[(sums_KS == sums_KS.max(axis=0)).sum(axis=0) > 1] = IGNORE
    best_S[0] = 0
    return best_S
