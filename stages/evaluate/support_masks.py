"""Where a support shows its class: the mask through which the learner looks at it, over the whole view.

Letters: K supports of a class, I J pixels of the view, H W pixels of a picture.

"pseudo" is the published pseudo-mask of a support, from its own keys and class query. "enhanced" is its label map in
another artifact. "gt" is the ground truth. Label maps are resized to the view as the original resizes ground truth.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ...manifests.errors import InputError
from ..maps.cst import support_masks
from ..scores.truth import GroundTruth
from ..students.features import FeatureSpec
from ..students.supervision import THRESHOLD, support_mask
from .predictions import LabelMaps

PSEUDO_FIELDS = ("keys", "cls_query")

# Ids of pictures that show a class, the class, and the fields that were read → their masks.
Masks = Callable[[Sequence[str], int, Mapping[str, Tensor]], Bool[Tensor, "K I J"]]


def pseudo_masks(sight: FeatureSpec) -> Masks:
    def masks(supports: Sequence[str], label: int, fields: Mapping[str, Tensor]) -> Tensor:
        keys, queries = (fields[name].float() for name in PSEUDO_FIELDS)
        return support_masks(keys, queries, heads=sight.heads, grid=sight.grid, size=sight.size_px, threshold=THRESHOLD)

    return masks


def true_masks(truth: GroundTruth, sight: FeatureSpec) -> Masks:
    return _masks_from(truth.mask, sight)


def label_map_masks(maps: LabelMaps, sight: FeatureSpec) -> Masks:
    def label_map(identifier: str) -> UInt8[np.ndarray, "H W"]:
        label_HW = maps.prediction(identifier).label_HW
        assert label_HW is not None, identifier  # see refuse_without_maps
        return label_HW

    return _masks_from(label_map, sight)


def _masks_from(label_map: Callable[[str], UInt8[np.ndarray, "H W"]], sight: FeatureSpec) -> Masks:
    def masks(supports: Sequence[str], label: int, fields: Mapping[str, Tensor]) -> Tensor:
        labels = (torch.from_numpy(label_map(identifier)) for identifier in supports)
        return torch.stack([support_mask(label_HW, label, sight.size_px) for label_HW in labels])

    return masks


def refuse_without_maps(maps: LabelMaps, supports: Collection[str], where: str) -> None:
    """Every support must have a label map."""
    for identifier in supports:
        if identifier not in maps or maps.failure(identifier):
            why = f"it failed ({maps.failure(identifier)})" if identifier in maps else "it is not among its rows"
            raise InputError(
                f"{where} has no label map for the support {identifier!r}: {why}; make labels for every picture that "
                "may be drawn, or choose another --support-mask"
            )
