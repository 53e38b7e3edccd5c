"""What is looked at after every epoch: whether clusters are still used, and whether class tokens tell classes apart.

Always of the teacher, on the same pictures, shown whole: so it follows from the weights alone, and a training that was
stopped writes the same lines as one that was not.

Letters: B pictures, S pixels of a side as stored, D width of a token, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ...manifests.pixels import Pixels
from ..vision.fitting import Colour
from .assignments import centred_targets, usage
from .teaching import TEACHER_TEMPERATURES, Teaching

NUM_WATCHED = 1024  # pictures
AT_ONCE = 64
SHOTS = 5
_COLLAPSED = 0.1  # of the largest entropy


@dataclass(frozen=True, slots=True)
class Watched:
    """The pictures that are looked at, and the only label of those that have one."""

    positions: Sequence[int]
    classes: Int64[np.ndarray, " B"]  # 0 where there is none


def chosen_pictures(positions: Sequence[int], classes: Int64[np.ndarray, " B"], seed: int) -> Watched:
    """The same for a seed, in an order that mixes classes."""
    order = np.random.default_rng([seed, 1]).permutation(len(positions))[:NUM_WATCHED]
    return Watched([positions[place] for place in order], classes[order])


def watched_values(teaching: Teaching, pixels: Pixels, watched: Watched, mean: Colour, std: Colour) -> dict[str, float]:
    """For the metric line of an epoch's last step."""
    config = teaching.config
    features, logits = [], []
    for start in range(0, len(watched.positions), AT_ONCE):
        pictures = torch.from_numpy(pixels.at(watched.positions[start : start + AT_ONCE])).permute(0, 3, 1, 2)
        tokens = _shown(teaching, pictures, mean, std)
        features.append(tokens[:, 0])
        logits.append(teaching.teacher.projection(tokens[:, :1])[0])
    values: dict[str, float] = {}
    if config.clusters_used:
        centre_K = teaching.centres.cls_K if config.avoidance == "centering" else torch.zeros(config.clusters)
        found = usage(centred_targets(torch.cat(logits), centre_K.to(logits[0]), TEACHER_TEMPERATURES[0]))
        values |= {"entropy": found.entropy, "active_clusters": found.num_active, "highest": found.highest}
    accuracy = nearest_centroid(torch.cat(features).cpu(), torch.from_numpy(watched.classes))
    return values | ({} if accuracy is None else {"nearest_centroid": accuracy})


def collapse(config_clusters: int, values: Mapping[str, float]) -> str:
    """A sentence where nearly everything is in one cluster, or nothing is decided; else nothing."""
    if "entropy" not in values:
        return ""
    largest = math.log(config_clusters)
    if values["entropy"] < _COLLAPSED * largest or values["active_clusters"] < 2:
        return (
            f"nearly everything is in {values['active_clusters']:.0f} of {config_clusters} clusters (entropy "
            f"{values['entropy']:.2f} of {largest:.2f}); choose another --avoidance, or fewer clusters"
        )
    if values["highest"] < 2 / config_clusters:
        return (
            f"every picture is in all {config_clusters} clusters alike; choose another --avoidance, or a larger batch"
        )
    return ""


def nearest_centroid(features: Float32[Tensor, "B D"], classes: Int64[Tensor, " B"]) -> float | None:
    """The share of pictures nearest to their class's mean of SHOTS others; of classes that have more than so many."""
    features = normalize(features, dim=-1)
    taught, asked, truth = [], [], []
    for label in sorted(set(classes.tolist()) - {0}):
        own = torch.nonzero(classes == label)[:, 0]
        if len(own) > SHOTS:
            taught.append(normalize(features[own[:SHOTS]].mean(dim=0), dim=0))
            asked.append(features[own[SHOTS:]])
            truth += [len(taught) - 1] * (len(own) - SHOTS)
    if len(taught) < 2:
        return None
    nearest = (torch.cat(asked) @ torch.stack(taught).mT).argmax(dim=1)
    return float((nearest == torch.tensor(truth)).float().mean())


@torch.no_grad()
def _shown(
    teaching: Teaching, pictures: UInt8[Tensor, "B 3 S S"], mean: Colour, std: Colour
) -> Float32[Tensor, "B M D"]:
    device = next(teaching.teacher.parameters()).device
    shift, width = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    size = teaching.config.global_size
    shown = interpolate(pictures.to(device).float() / 255, (size, size), mode="bilinear", antialias=True)
    return teaching.teacher.tokens((shown - shift) / width)
