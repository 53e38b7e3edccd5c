"""Where a support shows its class: the mask that the learner looks at it through, over the whole view.

Letters: K supports of a class, I J pixels of the view.

"pseudo" is the published pseudo-mask of a support, from its own keys and class query; "enhanced" the label map that
another artifact has of it; "gt" the ground truth. Label maps are resized to the view as the original resizes ground
truth.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from ...manifests.errors import InputError
from ..maps.cst import support_masks
from ..scores.truth import GroundTruth
from ..students.features import FeatureSpec
from ..students.supervision import THRESHOLD, support_mask
from .predictions import LabelMaps

PSEUDO_FIELDS = ("keys", "cls_query")

# Of pictures that show a class, from the fields that were read of them.
Masks = Callable[[Sequence[str], int, Mapping[str, Tensor]], Bool[Tensor, "K I J"]]


def pseudo_masks(sight: FeatureSpec) -> Masks:
    def masks(supports: Sequence[str], label: int, fields: Mapping[str, Tensor]) -> Tensor:
        keys, queries = (fields[name].float() for name in PSEUDO_FIELDS)
        return support_masks(keys, queries, heads=sight.heads, grid=sight.grid, size=sight.size_px, threshold=THRESHOLD)

    return masks


def true_masks(truth: GroundTruth, sight: FeatureSpec) -> Masks:
    def masks(supports: Sequence[str], label: int, fields: Mapping[str, Tensor]) -> Tensor:
        labels = (torch.from_numpy(truth.mask(each)) for each in supports)
        return torch.stack([support_mask(each, label, sight.size_px) for each in labels])

    return masks


def label_map_masks(maps: LabelMaps, sight: FeatureSpec) -> Masks:
    def masks(supports: Sequence[str], label: int, fields: Mapping[str, Tensor]) -> Tensor:
        found = (maps.prediction(each).label_HW for each in supports)
        labels = (torch.from_numpy(each) for each in found if each is not None)
        return torch.stack([support_mask(each, label, sight.size_px) for each in labels])

    return masks


def refuse_without_maps(maps: LabelMaps, supports: Collection[str], where: str) -> None:
    """Every support must have a label map."""
    for each in supports:
        if each not in maps or maps.failure(each):
            why = f"which failed ({maps.failure(each)})" if each in maps else "which it does not hold"
            raise InputError(
                f"{where} has no label map of the support {each!r}, {why}; make labels of every picture that may be "
                "drawn, or choose another --support-mask"
            )
