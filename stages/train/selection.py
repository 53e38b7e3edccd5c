"""Which step of a training is kept.

Letters: U V pixels of the query picture.

last      of a fixed budget, the default: nothing is looked at
held-out  the lowest loss on pictures of the classes that are learned, by the masks that are learned from
upstream  the highest mIoU on the test episodes of the other classes, by their ground truth. So did the original
          (callbacks.py: val/miou, whose loader is the test's), and so its numbers flatter; the checkpoint says it.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...manifests.errors import Diverged
from ..scores.few_shot import episode_counts
from ..scores.iou import mean_iou, sum_counts
from ..scores.truth import GroundTruth
from ..students.episodes import Episode
from ..students.features import Features
from ..students.learner import Learner
from ..students.objective import decide_ways, pixel_probability, upsample_logits
from .pairs import losses_of_pair, read_pairs
from .targets import Supervise

Watch = Callable[[int], Mapping[str, Any]]


class Kept(nn.Module):
    """The best weights so far; in a checkpoint of the training, so that one that was stopped knows them."""

    score: Tensor
    step: Tensor

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = copy.deepcopy(learner)
        self.register_buffer("score", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(-1))

    def offer(self, step: int, score: float, learner: Learner) -> None:
        """Of equally good steps the first is kept."""
        if score > self.score:
            self.learner.load_state_dict(learner.state_dict())
            self.score.fill_(score)
            self.step.fill_(step)


def watch_held_out(
    learner: Learner,
    kept: Kept,
    features: Features,
    supervise: Supervise,
    reads_keys: bool,
    episodes: Sequence[Episode],
    device: torch.device,
) -> Watch:
    @torch.no_grad()
    def watch(step: int) -> Mapping[str, Any]:
        total = 0.0
        for episode in episodes:
            pair = read_pairs(features, supervise, reads_keys, [episode])
            loss = float(losses_of_pair(learner, pair, 0, features.sight, device).total)
            if not math.isfinite(loss):
                pair_ids = f"{episode.query}, {episode.supports[0][0]}"
                raise Diverged(
                    f"the loss on held-out pictures is {loss:g} after step {step}, over {pair_ids}, so no step can be "
                    "chosen; choose a lower learning rate, or look at these pictures"
                )
            total += loss
        kept.offer(step, -total / len(episodes), learner)
        return {"held-out loss": total / len(episodes)}

    return watch


def watch_upstream(
    learner: Learner,
    kept: Kept,
    features: Features,
    supervise: Supervise,
    reads_keys: bool,
    episodes: Sequence[Episode],
    truth: GroundTruth,
    device: torch.device,
) -> Watch:
    @torch.no_grad()
    def watch(step: int) -> Mapping[str, Any]:
        counts = []
        for episode in episodes:
            pair = read_pairs(features, supervise, reads_keys, [episode])
            true_UV = truth.mask(episode.query)
            logits = learner.forward_tokens(
                pair.query_tokens.to(device),
                pair.support_tokens.to(device),
                pair.support_mask.to(device),
                features.sight.grid,
                features.sight.heads,
            )
            pixels_1UV = pixel_probability(upsample_logits(logits.segmentation, (true_UV.shape[0], true_UV.shape[1])))
            painted_UV = decide_ways(pixels_1UV[:, None])[0].cpu().numpy()
            counts.append(episode_counts(painted_UV, true_UV, episode.classes, "background"))
        # Where nothing is painted, and no pixel of truth is of these classes, there is nothing to divide by.
        found = float(np.nan_to_num(mean_iou(sum_counts(counts), with_background=False)))
        kept.offer(step, found, learner)
        return {"test mIoU": found}

    return watch
