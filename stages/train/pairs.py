"""Pairs of pictures as the learner is given them, and their losses, one pair after the other.

Letters: B pairs, L blocks, M class token and patches, S class token and 12×12 patches, D width, U V pixels of the view.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from ...manifests.classes import IGNORE
from ..students.episodes import Episode
from ..students.features import Features, FeatureSpec
from ..students.learner import Learner
from ..students.objective import PairLosses, pair_losses, upsample_logits
from .targets import PSEUDO_FIELDS, Supervise


@dataclass(frozen=True, slots=True)
class Pairs:
    query_tokens: Float[Tensor, "B L M D"]  # as stored
    support_tokens: Float[Tensor, "B L S D"]
    support_mask: Bool[Tensor, "B U V"]
    is_present: Bool[Tensor, " B"]
    target: UInt8[Tensor, "B U V"]

    def __len__(self) -> int:
        return len(self.is_present)


def read_pairs(features: Features, supervise: Supervise, reads_keys: bool, episodes: Sequence[Episode]) -> Pairs:
    """Of episodes of one way and one shot."""
    queries = features.read([each.query for each in episodes], ["tokens", *(["keys"] if reads_keys else [])])
    supports = features.read(
        [each.supports[0][0] for each in episodes], ["support_tokens", *(PSEUDO_FIELDS if reads_keys else [])]
    )
    masks_BUV, target_BUV, is_present_B = supervise(episodes, queries, supports)
    return Pairs(queries.fields["tokens"], supports.fields["support_tokens"], masks_BUV, is_present_B, target_BUV)


def losses_of_pair(learner: Learner, pairs: Pairs, place: int, sight: FeatureSpec, device: torch.device) -> PairLosses:
    own = slice(place, place + 1)
    logits = learner.forward_tokens(
        pairs.query_tokens[own].to(device),
        pairs.support_tokens[own].to(device),
        pairs.support_mask[own].to(device),
        sight.grid,
        sight.heads,
    )
    segmentation = upsample_logits(logits.segmentation, sight.size_px)
    return pair_losses(logits.presence, segmentation, pairs.is_present[own].to(device), pairs.target[own].to(device))


def count_undecided(pairs: Pairs) -> int:
    """Pairs whose target says nothing, so that only the class is learned from."""
    return int((pairs.target == IGNORE).flatten(1).all(dim=1).sum())


def mean_losses(
    learner: Learner, pairs: Pairs, sight: FeatureSpec, device: torch.device
) -> tuple[Float32[Tensor, ""], Float32[Tensor, ""], Float32[Tensor, ""]]:
    """Total, presence and segmentation over all pairs, with gradients for the parameters, in the memory of one pair."""
    parameters = [each for each in learner.parameters() if each.requires_grad]

    def of_pair(place: int) -> PairLosses:
        return losses_of_pair(learner, pairs, place, sight, device)

    total, presence, segmentation = _PairByPair.apply(of_pair, len(pairs), *parameters)
    return total, presence.detach(), segmentation.detach()


class _PairByPair(torch.autograd.Function):
    """The mean over pairs. Gradients are taken with the losses, so that no pair's activations outlive it; since norms
    are of one pair alone, they are those of the whole batch to rounding."""

    @staticmethod
    def forward(ctx: Any, of_pair: Callable[[int], PairLosses], count: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        gradients = [torch.zeros_like(each) for each in parameters]
        sums = parameters[0].new_zeros(3)
        for place in range(count):
            with torch.enable_grad():
                found = of_pair(place)
                own = torch.autograd.grad(found.total, parameters)
            for gradient, of_this in zip(gradients, own, strict=True):
                gradient.add_(of_this, alpha=1 / count)
            sums += torch.stack([found.total, found.presence, found.segmentation]).detach()
        ctx.gradients = gradients
        return tuple((sums / count).unbind())

    @staticmethod
    def backward(ctx: Any, *outward: Tensor) -> tuple[Tensor | None, ...]:
        """Of the total alone."""
        return (None, None, *(gradient * outward[0] for gradient in ctx.gradients))
