"""The classes of one picture by their place among them, as the background rules count them, and back.

Letters: K rows (soft maps) of the picture, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ...manifests.classes import BACKGROUND, IGNORE, MAX_CLASSES


@dataclass(frozen=True, slots=True)
class LocalClasses:
    classes: tuple[int, ...]  # in order of their index; the first is label 1
    labels_K: UInt8[np.ndarray, " K"]  # of the rows; the background's is 0

    def to_class_indices(self, local_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        """A map of local labels with the classes' own indices."""
        class_of = np.full(256, IGNORE, np.uint8)
        class_of[: len(self.classes) + 1] = [BACKGROUND, *self.classes]
        named_HW: UInt8[np.ndarray, "H W"] = class_of[local_HW]
        return named_HW


def local_classes(row_classes: Sequence[int]) -> LocalClasses:
    """Of rows that have a class each, 0 for the background's own."""
    assert all(BACKGROUND <= index <= MAX_CLASSES for index in row_classes), row_classes
    classes = sorted(set(row_classes) - {BACKGROUND})
    places = {BACKGROUND: BACKGROUND} | {index: place for place, index in enumerate(classes, start=1)}
    return LocalClasses(tuple(classes), np.array([places[index] for index in row_classes], np.uint8))
