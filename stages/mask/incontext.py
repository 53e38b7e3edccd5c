"""In-context masks: what a picture shares with masked pictures of the same class.

Letters: T patches of the picture, P patches of a support, K width of a feature, C clusters of the picture.

Source: INSID3 (Cuttano et al., CVPR 2026; Apache-2.0). Its four steps and constants: the picture's patches are
clustered by average linkage; a patch whose nearest neighbours lie on the object in half of the supports, and which
agrees with the object's mean, is a candidate; the cluster with candidates that agrees most with the object's mean is
the seed; a cluster scores by its agreement with the object's mean, times its agreement with the seed, times its share
of candidates. The object is what scores above 0.2.

This project's own: the map keeps the scores instead of cutting at once. A patch of a support is the object's if the
object covers half of it, or as much as it covers of any patch, so that small objects have one. Patches whose mask is
mostly undecided neither vote nor count. Directions that encode the position are not removed; see the stage's README.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]
from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

MERGED, OBJECT = 0.6, 0.2  # cosine at which clusters are still joined; score of the object. Published


@dataclass(frozen=True, slots=True)
class Support:
    """One masked picture of the class."""

    patches_PK: Float32[np.ndarray, "P K"]  # of length 1
    is_object_P: Bool[np.ndarray, " P"]  # at least one


def incontext_map(
    patches: Float32[np.ndarray, "T K"], clusters: Int64[np.ndarray, " T"], supports: Sequence[Support]
) -> Float32[np.ndarray, " T"]:
    """Scores from 0 to 1, the same for all patches of a cluster; zero everywhere if no patch is a candidate. `patches`
    have length 1."""
    object_K = unit_length(
        np.mean([support.patches_PK[support.is_object_P].mean(axis=0) for support in supports], axis=0)
    )
    agreement_T = _products(patches, object_K[None])[:, 0]
    is_candidate_T = _votes(patches, supports) & (agreement_T > 0)
    if not is_candidate_T.any():
        return np.zeros(len(patches), np.float32)
    area_C = np.bincount(clusters)
    share_C = np.bincount(clusters[is_candidate_T], minlength=len(area_C)) / area_C
    means_CK = _cluster_means(patches, clusters)
    seed = int(np.where(share_C > 0, _products(means_CK, object_K[None])[:, 0], -np.inf).argmax())
    share_C[seed] = 1
    agreement_C = np.bincount(clusters, agreement_T) / area_C
    scores_C = agreement_C * _products(means_CK, means_CK[[seed]])[:, 0] * share_C
    return np.clip(scores_C, 0, 1)[clusters].astype(np.float32)


def cluster_patches(patches: Float32[np.ndarray, "T K"], merged: float) -> Int64[np.ndarray, " T"]:
    """The cluster of each patch, from 0. Clusters are joined while the mean cosine between their patches, which have
    length 1, is at least `merged`."""
    if len(patches) == 1:
        return np.zeros(1, np.int64)
    distances_TT = 1 - np.clip(_products(patches, patches), -1, 1).astype(np.float64)
    distances_TT = (distances_TT + distances_TT.T) / 2
    np.fill_diagonal(distances_TT, 0)
    tree = linkage(squareform(distances_TT, checks=False), "average")
    return fcluster(tree, 1 - merged, "distance").astype(np.int64) - 1


def _votes(patches: Float32[np.ndarray, "T K"], supports: Sequence[Support]) -> Bool[np.ndarray, " T"]:
    """The patches whose nearest neighbour lies on the object in at least half of the supports."""
    votes_T = np.zeros(len(patches), np.int64)
    for support in supports:
        votes_T += support.is_object_P[_products(patches, support.patches_PK).argmax(axis=1)]
    return votes_T >= math.ceil(len(supports) / 2)


def _cluster_means(
    patches: Float32[np.ndarray, "T K"], clusters: Int64[np.ndarray, " T"]
) -> Float32[np.ndarray, "C K"]:
    sums_CK = np.zeros((int(clusters.max()) + 1, patches.shape[1]), np.float64)
    np.add.at(sums_CK, clusters, patches)
    return unit_length(sums_CK)


def unit_length(
    values: Float32[np.ndarray, "*rows K"] | Float64[np.ndarray, "*rows K"],
) -> Float32[np.ndarray, "*rows K"]:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return (values / np.maximum(length, 1e-12)).astype(np.float32)


def _products(left: Float32[np.ndarray, "T K"], right: Float32[np.ndarray, "P K"]) -> Float32[np.ndarray, "T P"]:
    """By torch, so that `one_thread` makes the bits the same on any machine."""
    return (torch.from_numpy(left) @ torch.from_numpy(right).T).numpy()
