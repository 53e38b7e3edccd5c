"""Converts class indices to labels local to one picture, as the background rules use them, and back.

Letters: K rows (soft maps) of the picture, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ...manifests.classes import BACKGROUND, IGNORE, MAX_CLASSES


@dataclass(frozen=True, slots=True)
class LocalClasses:
    classes: tuple[int, ...]  # ascending; the first has label 1
    labels_K: UInt8[np.ndarray, " K"]  # one per row; 0 is background

    def to_class_indices(self, local_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        """The class indices of a map of local labels."""
        class_table = np.full(256, IGNORE, np.uint8)
        class_table[: len(self.classes) + 1] = [BACKGROUND, *self.classes]
        return np.asarray(class_table[local_HW])


def local_classes(row_classes: Sequence[int]) -> LocalClasses:
    """`row_classes` holds the class of each row; 0 is background."""
    assert all(BACKGROUND <= index <= MAX_CLASSES for index in row_classes), row_classes
    classes = sorted(set(row_classes) - {BACKGROUND})
    places = {BACKGROUND: BACKGROUND} | {index: place for place, index in enumerate(classes, start=1)}
    return LocalClasses(tuple(classes), np.array([places[index] for index in row_classes], np.uint8))
