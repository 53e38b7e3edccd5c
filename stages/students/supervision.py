"""The masks of a pair, made from label maps.

Letters: H W pixels of a picture, U V pixels of a target.

Pseudo-masks of a pair come from stored `keys` and `cls_query`, by `pair_masks` of maps/cst.py. The original has a
threshold of 0.4 and 400×400 pixels.
"""

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ...manifests.classes import IGNORE
from ..choices import Void

THRESHOLD = 0.4  # of pseudo-masks, on the cosine moved to [0, 1]


def query_target(
    labels: UInt8[Tensor, "H W"], label: int, size: tuple[int, int], void: Void = "background"
) -> UInt8[Tensor, "U V"]:
    """1 where the class is, 0 elsewhere. 255 becomes 0, as in the original, or stays 255 and is not learned."""
    at_size = _nearest(labels, size)
    target = (at_size == label).to(torch.uint8)
    return torch.where(at_size == IGNORE, IGNORE, target).to(torch.uint8) if void == "ignore" else target


def support_mask(labels: UInt8[Tensor, "H W"], label: int, size: tuple[int, int]) -> Bool[Tensor, "U V"]:
    return _nearest(labels, size) == label


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """As the original resizes ground truth."""
    return interpolate(labels[None, None], size, mode="nearest")[0, 0]
