"""The loss of the learner, and the decisions from its answers.

Letters: B pairs, E episodes, N ways, K shots, R Q the grid of logits, U V pixels.

Source: CST, model/cst.py:151-190. Each way is a pair of its own until the last decision, so a learner that was trained
with one way answers for any number. The two answers do not gate each other.
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
    """Logits at the size of the target or the picture, with corners aligned."""
    return interpolate(segmentation, size, mode="bilinear", align_corners=True)


def pair_losses(
    presence: Float[Tensor, "B 2"],
    segmentation: Float[Tensor, "B 2 U V"],
    is_present: Bool[Tensor, " B"],
    target: UInt8[Tensor, "B U V"],
) -> PairLosses:
    """Cross-entropy of both answers; the target is 0, 1 or 255.

    A pixel of 255 does not count, and a picture with no other pixels adds 0; this is this project's own, because the
    original turns void into background first. Each picture is averaged over its counted pixels, so that a batch in
    parts has the same mean.
    """
    presence_loss = cross_entropy(presence.float(), is_present.long())
    pixel_loss_BUV = cross_entropy(segmentation.float(), target.long(), ignore_index=IGNORE, reduction="none")
    counted_B = (target != IGNORE).flatten(1).sum(dim=1)
    segmentation_loss = (pixel_loss_BUV.flatten(1).sum(dim=1) / counted_B.clamp_min(1)).mean()
    return PairLosses(PRESENCE_WEIGHT * presence_loss + segmentation_loss, presence_loss, segmentation_loss)


def probability(logits: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N"]:
    """The probability that the class is there."""
    return logits.softmax(dim=-1)[..., 1]


def pixel_probability(logits: Float[Tensor, "B 2 U V"]) -> Float[Tensor, "B U V"]:
    return logits.softmax(dim=1)[:, 1]


def mean_over_shots(probabilities: Float[Tensor, "K *rest"]) -> Float[Tensor, "*rest"]:
    """The mean over the shots decides."""
    return probabilities.mean(dim=0)


def decide_presence(probabilities: Float[Tensor, "E N"]) -> Bool[Tensor, "E N"]:
    """Each way by itself."""
    return probabilities > _BOUNDARY


def decide_ways(probabilities: Float[Tensor, "E N U V"]) -> UInt8[Tensor, "E U V"]:
    """1 + the most probable way, the first of equals; 0 where none reaches ½."""
    highest, way = probabilities.max(dim=1)
    return torch.where(highest >= _BOUNDARY, way + 1, 0).to(torch.uint8)
