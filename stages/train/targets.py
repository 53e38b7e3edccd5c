"""The supervision of pairs: a mask through which to look at the support, and a target mask for the query.

Letters: B pairs, H W pixels of a picture, U V pixels of the view.

pseudo     the published pair masks, from the keys of both and the support's class query
published  the dataset's masks
mask       ground truth, for the pictures that have it
mixed      the dataset's masks, where it holds ground truth for some pictures and pseudo-masks for the others

`manifest --ground-truth` names the pictures whose ground truth `mixed` may use; it takes an id list, or an enhancer for
those that it was fitted on. In ground truth, void is background and the pixels say whether the class is there, as in
the original (data/pascal.py), so that the two answers never contradict each other. Without ground truth, image-level
labels say whether the class is there, and undecided pixels of a pseudo-mask are not learned: this project's own.
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
# Masks of supports, target masks of queries, and whether the queries show the class.
Targets = tuple[Bool[Tensor, "B U V"], UInt8[Tensor, "B U V"], Bool[Tensor, " B"]]
# Episodes of one way and one shot, and what was read of their queries and supports → targets.
Supervise = Callable[[Sequence[Episode], FeatureBatch, FeatureBatch], Targets]
# Id → a label map, and the meaning of void in it: background in ground truth only.
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
                f"no picture of {published.place} has ground truth; pass as --images an index of these pictures with "
                "masks, or choose another --supervision"
            )
        return targets_by_masks(lambda identifier: (truth.mask(identifier), "background"), sight)
    if supervision == "mixed" and len(published.ground_truth) in (0, len(published.places)):
        masks = "no ground truth" if not published.ground_truth else "nothing but ground truth"
        raise InputError(
            f"{published.place} holds {masks}, and --supervision mixed needs both kinds of masks; publish it with "
            "--ground-truth and the ids of a few pictures, or an enhancer, or choose --supervision published"
        )
    return targets_by_masks(
        lambda identifier: (
            published.mask(identifier),
            "background" if identifier in published.ground_truth else "ignore",
        ),
        sight,
    )


def targets_by_keys(sight: FeatureSpec) -> Supervise:
    def targets(episodes: Sequence[Episode], queries: FeatureBatch, supports: FeatureBatch) -> Targets:
        is_present_B = _presence_labels(episodes)
        masks_BUV, target_BUV = pair_masks(
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
        return masks_BUV, target_BUV.to(torch.uint8), is_present_B

    return targets


def targets_by_masks(labelled: Labelled, sight: FeatureSpec) -> Supervise:
    def targets(episodes: Sequence[Episode], queries: FeatureBatch, supports: FeatureBatch) -> Targets:
        masks, targets, is_present_B = [], [], _presence_labels(episodes)
        for place, episode in enumerate(episodes):
            label = episode.classes[0]
            support_HW, _ = labelled(episode.supports[0][0])
            masks.append(support_mask(torch.from_numpy(support_HW), label, sight.size_px))
            query_HW, void = labelled(episode.query)
            targets.append(query_target(torch.from_numpy(query_HW), label, sight.size_px, void))
            if void == "background":
                is_present_B[place] = bool((query_HW == label).any())
        return torch.stack(masks), torch.stack(targets), is_present_B

    return targets


def _presence_labels(episodes: Sequence[Episode]) -> Bool[Tensor, " B"]:
    """By image-level labels."""
    return torch.tensor([episode.is_present[0] for episode in episodes])
