"""Which step of a training is kept.

Letters: U V pixels of the query picture.

last      the last of a fixed number of steps, the default
held-out  the lowest loss on held-out pictures of the learned classes, against the masks of the dataset
upstream  the highest mIoU on the test episodes of the other classes, against ground truth. The original does this
          (callbacks.py: val/miou, whose loader is the test's), so its scores are flattered; the checkpoint says so.
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
from ..students.features import FeatureSpec
from ..students.learner import Learner
from ..students.objective import decide_ways, pixel_probability, upsample_logits
from .pairs import Pairs, logits_of_pair, losses_of_pair

Watch = Callable[[int], Mapping[str, Any]]
ReadPair = Callable[[Episode], Pairs]


class Kept(nn.Module):
    """The best weights so far. They are part of the saved training state, so that a stopped training can resume."""

    score: Tensor
    step: Tensor

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = copy.deepcopy(learner)
        self.register_buffer("score", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(-1))

    def offer(self, step: int, score: float, learner: Learner) -> None:
        """Keeps the weights if they score higher; the first of equal steps stays."""
        if score > self.score:
            self.learner.load_state_dict(learner.state_dict())
            self.score.fill_(score)
            self.step.fill_(step)


def watch_held_out(
    learner: Learner, kept: Kept, sight: FeatureSpec, read: ReadPair, episodes: Sequence[Episode], device: torch.device
) -> Watch:
    @torch.no_grad()
    def watch(step: int) -> Mapping[str, Any]:
        total = 0.0
        for episode in episodes:
            loss = float(losses_of_pair(learner, read(episode), 0, sight, device).total)
            if not math.isfinite(loss):
                pair_ids = f"{episode.query}, {episode.supports[0][0]}"
                raise Diverged(
                    f"the loss on held-out pictures is {loss:g} after step {step}, over {pair_ids}, so no step can be "
                    "chosen; choose a lower --learning-rate, or look at these pictures"
                )
            total += loss
        kept.offer(step, -total / len(episodes), learner)
        return {"held-out loss": total / len(episodes)}

    return watch


def watch_upstream(
    learner: Learner,
    kept: Kept,
    sight: FeatureSpec,
    read: ReadPair,
    episodes: Sequence[Episode],
    device: torch.device,
    truth: GroundTruth,
) -> Watch:
    @torch.no_grad()
    def watch(step: int) -> Mapping[str, Any]:
        counts = []
        for episode in episodes:
            true_UV = truth.mask(episode.query)
            logits = logits_of_pair(learner, read(episode), 0, sight, device)
            pixels_1UV = pixel_probability(upsample_logits(logits.segmentation, (true_UV.shape[0], true_UV.shape[1])))
            painted_UV = decide_ways(pixels_1UV[:, None])[0].cpu().numpy()
            counts.append(episode_counts(painted_UV, true_UV, episode.classes, "background"))
        # NaN if nothing is painted and the truth has no pixel of these classes.
        miou = float(np.nan_to_num(mean_iou(sum_counts(counts), with_background=False)))
        kept.offer(step, miou, learner)
        return {"test mIoU": miou}

    return watch
