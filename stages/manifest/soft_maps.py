"""The soft maps of a picture at its size, and the label map that they give before refining.

Letters: K soft maps, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ..maps.background_rules import BackgroundRule
from ..maps.backgrounds import PictureMaps, hard_labels
from ..maps.local_classes import local_classes


@dataclass(frozen=True, slots=True)
class SoftMaps:
    maps_KHW: Float32[np.ndarray, "K H W"]
    thresholds_K: Float64[np.ndarray, " K"]
    classes: Sequence[int | None]  # class of each map; None: whatever stands out

    def class_map(self, label: int) -> Float32[np.ndarray, "H W"] | None:
        """The map of a class (the maximum if there are several), else that of an object without class."""
        for wanted in (label, None):
            own = [place for place, index in enumerate(self.classes) if index == wanted]
            if own:
                return self.maps_KHW[own].max(axis=0)
        return None


def labels_before_refining(
    soft: SoftMaps, background: BackgroundRule, classes: Sequence[int]
) -> UInt8[np.ndarray, "H W"] | None:
    """The label map that the background rule alone gives.

    An object without class counts as the one class in `classes`. None if `classes` has several, because the class of
    each part of the object is known only after refining.
    """
    if None in soft.classes and len(classes) != 1:
        return None
    local = local_classes([classes[0] if index is None else index for index in soft.classes])
    return local.to_class_indices(
        hard_labels(PictureMaps(soft.maps_KHW, soft.thresholds_K, local.labels_K), background)
    )
