"""Metrics after every epoch: cluster usage, and how well class tokens separate classes.

They are measured on the teacher with the same uncropped pictures, so that they depend on the weights only, and a
resumed training writes the same lines.

Letters: B pictures, S pixels of a side as stored, D width of a token, C classes.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.pixels import Pixels
from ...manifests.errors import ConfigError
from ..learning.processes import gather_self
from ..vision.fitting import Colour
from .assignments import centering_targets, cluster_usage
from .config import PretrainConfig
from .teaching import TEACHER_TEMPERATURES, Teaching

NUM_WATCHED, NUM_CANDIDATES = 1024, 16_384  # pictures watched, and pictures they are chosen from
NUM_CLASSES, OF_A_CLASS = 50, 20  # classes, and labelled pictures of each
AT_ONCE = 64
SHOTS = 5
_LEAST_INFORMATION = 0.02  # share of log K, below which clusters count as collapsed


@dataclass(frozen=True, slots=True)
class Watched:
    positions: Int64[np.ndarray, " B"]
    classes: Int64[np.ndarray, " B"]  # 0 for pictures without exactly one label


def choose_watched_pictures(pixels: Pixels, images: Artifact, positions: Int64[np.ndarray, " N"], seed: int) -> Watched:
    """Chooses pictures of the most common classes first, then others; deterministic for a seed."""
    generator = np.random.default_rng([seed, 1])
    drawn = np.sort(generator.choice(positions, min(NUM_CANDIDATES, len(positions)), replace=False))
    ids = pixels.ids_at(drawn)
    try:
        labels = images.rows_of(ids, ["labels"]).column("labels").to_pylist()
    except KeyError as error:
        raise ConfigError(
            f"{error.args[0]}, of which {pixels.artifact.place} has pixels; pass as --images those that the pixels "
            "were made from"
        ) from error
    classes = np.array([own[0] if len(own or ()) == 1 else 0 for own in labels], np.int64)
    order = generator.permutation(len(drawn))
    commonest = [label for label, _ in Counter(classes[classes > 0].tolist()).most_common(NUM_CLASSES)]
    labelled = [order[classes[order] == label][:OF_A_CLASS] for label in sorted(commonest)]
    first = np.concatenate([*labelled, order])
    _, place = np.unique(first, return_index=True)
    kept = np.sort(first[np.sort(place)][:NUM_WATCHED])
    return Watched(drawn[kept], classes[kept])


@torch.no_grad()
def measure_teacher(
    teaching: Teaching, pixels: Pixels, watched: Watched, mean: Colour, std: Colour
) -> dict[str, float]:
    """Metrics for an epoch's last line: class token clusters, patch clusters and classes. Runs in one process."""
    features, logits = [], dict[str, list[Tensor]]()
    for start in range(0, len(watched.positions), AT_ONCE):
        pictures = torch.from_numpy(pixels.at(watched.positions[start : start + AT_ONCE])).permute(0, 3, 1, 2)
        tokens = _teacher_tokens(teaching, pictures, mean, std)
        features.append(tokens[:, 0])
        if "cls" in teaching.config.clustering_losses:
            logits.setdefault("cls", []).append(teaching.teacher.projection(tokens[:, :1])[0])
        if "patch" in teaching.config.clustering_losses:  # one patch per picture, at a different place each
            patch_B = 1 + (torch.arange(len(tokens)) + start) % (tokens.shape[1] - 1)
            chosen = tokens[torch.arange(len(tokens)), patch_B][:, None]
            logits.setdefault("patch", []).append(teaching.teacher.projection(chosen.expand(-1, 2, -1))[1][:, 0])
    values: dict[str, float] = {}
    for name, parts in logits.items():
        targets = centering_targets(torch.cat(parts), teaching.centres.get(name), TEACHER_TEMPERATURES[1])
        usage = cluster_usage(targets, gather_self)
        undecided = -(targets * targets.clamp_min(1e-30).log()).sum(dim=-1).mean()
        values |= {f"{name} entropy": usage.entropy, f"{name} information": max(0.0, usage.entropy - float(undecided))}
        values |= {f"{name} active": usage.num_active, f"{name} highest": usage.highest}
    accuracy = nearest_centroid(torch.cat(features).cpu(), torch.from_numpy(watched.classes))
    return values | ({} if accuracy is None else {"nearest_centroid": accuracy})


def collapse_warning(config: PretrainConfig, values: Mapping[str, float]) -> str:
    """A warning if clusters carry almost no information about pictures or patches; else an empty string."""
    largest = math.log(config.clusters)
    collapsed = [
        name for name in config.clustering_losses if values[f"{name} information"] < _LEAST_INFORMATION * largest
    ]
    if not collapsed:
        return ""
    details = ", ".join(
        f"{name} {values[f'{name} information']:.2f} of {largest:.2f} nats, {values[f'{name} active']:.0f} clusters of "
        f"{config.clusters} in use"
        for name in collapsed
    )
    return f"clusters hardly tell pictures apart ({details}); choose another --avoidance, or train for longer"


def nearest_centroid(features: Float32[Tensor, "B D"], classes: Int64[Tensor, " B"]) -> float | None:
    """Nearest-centroid accuracy with SHOTS pictures per centroid, over classes with more; None for fewer than two."""
    features = normalize(features, dim=-1)
    centroids, queries, truth = [], [], []
    for label in sorted(set(classes.tolist()) - {0}):
        own = torch.nonzero(classes == label)[:, 0]
        if len(own) > SHOTS:
            centroids.append(normalize(features[own[:SHOTS]].mean(dim=0), dim=0))
            queries.append(features[own[SHOTS:]])
            truth += [len(centroids) - 1] * (len(own) - SHOTS)
    if len(centroids) < 2:
        return None
    nearest = (torch.cat(queries) @ torch.stack(centroids).mT).argmax(dim=1)
    return float((nearest == torch.tensor(truth)).float().mean())


def _teacher_tokens(
    teaching: Teaching, pictures: UInt8[Tensor, "B 3 S S"], mean: Colour, std: Colour
) -> Float32[Tensor, "B M D"]:
    device = next(teaching.teacher.parameters()).device
    shift, width = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    size = teaching.config.global_size
    resized = interpolate(pictures.to(device).float() / 255, (size, size), mode="bilinear", antialias=True)
    return teaching.teacher.tokens((resized - shift) / width)
