"""What pairs are supervised by: a mask to look at the support through, and one that the query is asked for.

Letters: B pairs, H W pixels of a picture, U V pixels of the view.

pseudo     the published pair masks, from the keys of both and the support's class query
published  the dataset's masks
mask       ground truth, of the pictures that have some
mixed      the dataset's masks, where it holds ground truth for some pictures and pseudo-masks for the others

Which pictures' ground truth `mixed` may use was said when the dataset was published (`manifest --ground-truth`, which
also takes an enhancer for those that it was fitted on), so that nothing has to be said twice. Void in ground truth is
background, and whether it shows the class its pixels say, as in the original (data/pascal.py), so that the two answers
never contradict each other. Where there is no ground truth image-level labels say it, and what a pseudo-mask leaves
undecided is not asked for: this project's own.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ...manifests.errors import InputError
from ..choices import Void
from ..maps.cst import pair_masks
from ..scores.truth import GroundTruth
from ..students.episodes import Episode
from ..students.features import FeatureBatch, FeatureSpec
from ..students.supervision import THRESHOLD, query_target, support_mask
from .published import PublishedDataset

PSEUDO_FIELDS = ("keys", "cls_query")
# Masks of supports, of queries, and whether queries show the class.
Targets = tuple[Bool[Tensor, "B U V"], UInt8[Tensor, "B U V"], Bool[Tensor, " B"]]
# Of episodes of one way and one shot, and of what was read of their queries and supports.
Supervise = Callable[[Sequence[Episode], FeatureBatch, FeatureBatch], Targets]
# A label map, and what is void in it: background in ground truth alone.
Labelled = Callable[[str], tuple[UInt8[np.ndarray, "H W"], Void]]


def target_builder(
    supervision: Literal["pseudo", "published", "mask", "mixed"],
    published: PublishedDataset,
    truth: GroundTruth | None,
    sight: FeatureSpec,
) -> Supervise:
    if supervision == "pseudo":
        return targets_by_keys(sight)
    if supervision == "mask":
        if truth is None or not set(truth.ids) & published.places.keys():
            raise InputError(
                f"no picture of {published.place} has ground truth here; pass as --images an index of these pictures "
                "with masks, or choose another supervision"
            )
        return targets_by_masks(lambda identifier: (truth.mask(identifier), "background"), sight)
    if supervision == "mixed" and len(published.ground_truth) in (0, len(published.places)):
        held = "no ground truth" if not published.ground_truth else "nothing but ground truth"
        raise InputError(
            f"{published.place} holds {held}, and mixed wants some of both; publish it with --ground-truth and the ids "
            "of a few pictures, or an enhancer, or choose supervision published"
        )
    return targets_by_masks(
        lambda each: (published.mask(each), "background" if each in published.ground_truth else "ignore"), sight
    )


def targets_by_keys(sight: FeatureSpec) -> Supervise:
    def targets(episodes: Sequence[Episode], queries: FeatureBatch, supports: FeatureBatch) -> Targets:
        is_present_B = _presence_labels(episodes)
        masks_BUV, wanted_BUV = pair_masks(
            supports.fields["keys"],
            supports.fields["cls_query"],
            queries.fields["keys"],
            is_present_B,
            heads=sight.heads,
            grids=(sight.grid, sight.grid),
            support_size=sight.size_px,
            query_size=sight.size_px,
            threshold=THRESHOLD,
        )
        return masks_BUV, wanted_BUV.to(torch.uint8), is_present_B

    return targets


def targets_by_masks(labelled: Labelled, sight: FeatureSpec) -> Supervise:
    def targets(episodes: Sequence[Episode], queries: FeatureBatch, supports: FeatureBatch) -> Targets:
        masks, wanted, is_present_B = [], [], _presence_labels(episodes)
        for place, episode in enumerate(episodes):
            label = episode.classes[0]
            support_HW, _ = labelled(episode.supports[0][0])
            masks.append(support_mask(torch.from_numpy(support_HW), label, sight.size_px))
            query_HW, void = labelled(episode.query)
            wanted.append(query_target(torch.from_numpy(query_HW), label, sight.size_px, void))
            if void == "background":
                is_present_B[place] = bool((query_HW == label).any())
        return torch.stack(masks), torch.stack(wanted), is_present_B

    return targets


def _presence_labels(episodes: Sequence[Episode]) -> Bool[Tensor, " B"]:
    """As image-level labels have it."""
    return torch.tensor([each.is_present[0] for each in episodes])
