"""Pairs of pictures as the learner reads them, and their losses, one pair after the other.

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
from ..students.learner import Learner, Logits
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
    """The pairs of episodes with one way and one shot."""
    queries = features.read([episode.query for episode in episodes], ["tokens", *(["keys"] if reads_keys else [])])
    supports = features.read(
        [episode.supports[0][0] for episode in episodes], ["support_tokens", *(PSEUDO_FIELDS if reads_keys else [])]
    )
    masks_BUV, target_BUV, is_present_B = supervise(episodes, queries, supports)
    return Pairs(queries.fields["tokens"], supports.fields["support_tokens"], masks_BUV, is_present_B, target_BUV)


def losses_of_pair(learner: Learner, pairs: Pairs, place: int, sight: FeatureSpec, device: torch.device) -> PairLosses:
    pair = slice(place, place + 1)
    logits = logits_of_pair(learner, pairs, place, sight, device)
    segmentation = upsample_logits(logits.segmentation, sight.size_px)
    return pair_losses(logits.presence, segmentation, pairs.is_present[pair].to(device), pairs.target[pair].to(device))


def logits_of_pair(learner: Learner, pairs: Pairs, place: int, sight: FeatureSpec, device: torch.device) -> Logits:
    query, support, mask = (
        part[place : place + 1].to(device) for part in (pairs.query_tokens, pairs.support_tokens, pairs.support_mask)
    )
    return learner.forward_tokens(query, support, mask, sight.grid, sight.heads)


def count_undecided(pairs: Pairs) -> int:
    """Pairs whose target is undecided everywhere, which teach only the class."""
    return int((pairs.target == IGNORE).flatten(1).all(dim=1).sum())


def mean_losses(
    learner: Learner, pairs: Pairs, sight: FeatureSpec, device: torch.device
) -> tuple[Float32[Tensor, ""], Float32[Tensor, ""], Float32[Tensor, ""]]:
    """Total, presence and segmentation over all pairs, with gradients for the parameters, in the memory of one pair."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]

    def losses(place: int) -> PairLosses:
        return losses_of_pair(learner, pairs, place, sight, device)

    total, presence, segmentation = _PairByPair.apply(losses, len(pairs), *parameters)
    return total, presence.detach(), segmentation.detach()


class _PairByPair(torch.autograd.Function):
    """The mean over pairs. Gradients are computed with the losses, so that no pair's activations outlive it. Each norm
    covers one pair alone, so the gradients equal those of the whole batch up to rounding."""

    @staticmethod
    def forward(ctx: Any, losses: Callable[[int], PairLosses], count: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        sums = parameters[0].new_zeros(3)
        for place in range(count):
            with torch.enable_grad():
                pair = losses(place)
                pair_gradients = torch.autograd.grad(pair.total, parameters)
            for gradient, pair_gradient in zip(gradients, pair_gradients, strict=True):
                gradient.add_(pair_gradient, alpha=1 / count)
            sums += torch.stack([pair.total, pair.presence, pair.segmentation]).detach()
        ctx.gradients = gradients
        return tuple((sums / count).unbind())

    @staticmethod
    def backward(ctx: Any, *outward: Tensor) -> tuple[Tensor | None, ...]:
        """Only the total has gradients."""
        return (None, None, *(gradient * outward[0] for gradient in ctx.gradients))
