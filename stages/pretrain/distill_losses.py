"""The losses between a student's predictions and a teacher's stored tokens, and the unit in which they are compared.

Letters: B pictures, M class token and patches, T patches, D width of a teacher's token.

Tokens of a vision transformer share a large mean, which would make any two of them agree. So targets are centred on the
mean of the training pictures, class token and patches apart, and divided by one number each, their deviation. The
directions between tokens stay as they are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn.functional import cosine_similarity, smooth_l1_loss

DistillLoss = Literal["cosine", "smooth-l1"]
LOSSES: tuple[DistillLoss, ...] = ("cosine", "smooth-l1")
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, slots=True)
class TokenScale:
    """Mean and deviation of the class token (first) and of patches (second)."""

    mean_2D: Float32[Tensor, "2 D"]
    deviation_2: Float32[Tensor, " 2"]

    def to(self, device: torch.device) -> "TokenScale":
        return TokenScale(self.mean_2D.to(device), self.deviation_2.to(device))


def measure_scale(tokens_BMD: Float[Tensor, "B M D"]) -> TokenScale:
    parts = (tokens_BMD[:, 0].double(), tokens_BMD[:, 1:].flatten(0, 1).double())
    means = [part.mean(dim=0) for part in parts]
    deviations = [
        (part - mean).square().mean().sqrt().clamp_min(_LEAST_DEVIATION)
        for part, mean in zip(parts, means, strict=True)
    ]
    return TokenScale(torch.stack(means).float(), torch.stack(deviations).float())


def scale_tokens(tokens_BMD: Float[Tensor, "B M D"], scale: TokenScale) -> Float32[Tensor, "B M D"]:
    place_M = (torch.arange(tokens_BMD.shape[1], device=tokens_BMD.device) > 0).long()
    mean_MD, deviation_M = scale.mean_2D[place_M], scale.deviation_2[place_M]
    return (tokens_BMD.float() - mean_MD) / deviation_M[:, None]


def token_cosines(predicted_BMD: Float[Tensor, "B M D"], targets_BMD: Float[Tensor, "B M D"]) -> Float32[Tensor, "B M"]:
    return cosine_similarity(predicted_BMD.float(), targets_BMD.float(), dim=-1)


def token_losses(
    predicted_BMD: Float[Tensor, "B M D"], targets_BMD: Float[Tensor, "B M D"], loss: DistillLoss
) -> Float32[Tensor, "B M"]:
    """Of each token: 1 − cosine, or the mean of smooth L1 over the width, which is square below 1, the deviation of
    the targets."""
    if loss == "cosine":
        return 1 - token_cosines(predicted_BMD, targets_BMD)
    return smooth_l1_loss(predicted_BMD.float(), targets_BMD.float(), reduction="none").mean(dim=-1)


def mean_of_parts(
    values_BM: Float32[Tensor, "B M"], is_counted_BT: Bool[Tensor, "B T"]
) -> tuple[Float32[Tensor, ""], Float32[Tensor, ""]]:
    """The mean over class tokens, and that over counted patches: each picture's own mean first, so that pictures have
    equal weight. A picture without counted patches adds a 0."""
    counts_B = is_counted_BT.sum(dim=1).clamp_min(1)
    patches_B = values_BM[:, 1:].where(is_counted_BT, 0).sum(dim=1) / counts_B
    return values_BM[:, 0].mean(), patches_B.mean()
