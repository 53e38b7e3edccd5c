"""What the learner is asked for, and what its answers decide.

Letters: B pairs, E episodes, N ways, K shots, R Q the grid of logits, U V pixels.

Source: CST, model/cst.py:151-190. Ways never meet before the last decision: each is one pair of its own, so a learner
that was trained with one way answers for any number. The two answers do not gate each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from ...manifests.classes import IGNORE

PRESENCE_WEIGHT = 0.1
_BOUNDARY = 0.5

Scalar = Float32[Tensor, ""]


@dataclass(frozen=True, slots=True)
class PairLosses:
    total: Scalar
    presence: Scalar
    segmentation: Scalar

    @property
    def parts(self) -> Mapping[str, Scalar]:
        return {"presence": self.presence, "segmentation": self.segmentation}


def upsample_logits(segmentation: Float[Tensor, "B 2 R Q"], size: tuple[int, int]) -> Float[Tensor, "B 2 U V"]:
    """Logits at the size of the target or of the picture, corners aligned."""
    return interpolate(segmentation, size, mode="bilinear", align_corners=True)


def pair_losses(
    presence: Float[Tensor, "B 2"],
    segmentation: Float[Tensor, "B 2 U V"],
    is_present: Bool[Tensor, " B"],
    target: UInt8[Tensor, "B U V"],
) -> PairLosses:
    """Cross-entropy of both answers; the target is 0, 1 or 255.

    A pixel that is 255 does not count, and a picture without any other adds 0: this project's own, as the original
    makes void background before it comes here. A picture is the mean over its pixels that count, so that of a batch
    done in parts the mean of the parts is the same.
    """
    of_presence = cross_entropy(presence.float(), is_present.long())
    of_pixel_BUV = cross_entropy(segmentation.float(), target.long(), ignore_index=IGNORE, reduction="none")
    counted_B = (target != IGNORE).flatten(1).sum(dim=1)
    of_segmentation = (of_pixel_BUV.flatten(1).sum(dim=1) / counted_B.clamp_min(1)).mean()
    return PairLosses(PRESENCE_WEIGHT * of_presence + of_segmentation, of_presence, of_segmentation)


def probability(logits: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N"]:
    """That the class is there."""
    return logits.softmax(dim=-1)[..., 1]


def pixel_probability(logits: Float[Tensor, "B 2 U V"]) -> Float[Tensor, "B U V"]:
    return logits.softmax(dim=1)[:, 1]


def mean_over_shots(probabilities: Float[Tensor, "K *rest"]) -> Float[Tensor, "*rest"]:
    """Of several shots the mean of their probabilities decides."""
    return probabilities.mean(dim=0)


def decide_presence(probabilities: Float[Tensor, "E N"]) -> Bool[Tensor, "E N"]:
    """Each way by itself."""
    return probabilities > _BOUNDARY


def decide_ways(probabilities: Float[Tensor, "E N U V"]) -> UInt8[Tensor, "E U V"]:
    """1 + the most probable way, the first of equals; 0 where none reaches ½."""
    highest, way = probabilities.max(dim=1)
    return torch.where(highest >= _BOUNDARY, way + 1, 0).to(torch.uint8)
