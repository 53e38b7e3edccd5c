"""Spreads the scores of maps over a sparse affinity of the picture's own patches.

Letters: R rows, T patches, V patches of the picture itself, K width of the feature.

Source: the step over patches of LPOSS (Stojnić, Kalantidis, Matas, Tolias, CVPR 2025; code MIT), which is the label
propagation of Zhou et al. (NIPS 2003). From scores y it takes the x of x = (1 - share)·y + share·P·x, where P is the
affinity of each patch with its nearest ones by cosine^3.

Ours: P is row-stochastic, like a random walk; LPOSS normalises it symmetrically. So x is a weighted mean of scores: it
stays in their range, and equal scores stay equal. LPOSS also weighs patches by their distance in the picture, counts
patches that are each other's nearest twice, and spreads over pixels in a second step, for which `refine` has its
refiners.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor
from torch.nn.functional import normalize

from ..maps.one_thread import one_thread

# Both as in LPOSS. On 72 VOC pictures of 784 patches, with a share of 0.8, `cst` gains 0.035 mIoU with 400 neighbours
# and 0.006 to 0.009 with 8, 16, 64 or 128. `ncut` gains 0.010 with 400, and most, 0.013, with 128.
NEIGHBOURS, POWER = 400, 3


def propagate_maps(
    map_RT: Float32[np.ndarray, "R T"],
    valid_RT: Bool[np.ndarray, "R T"],
    patches_RTK: Float[np.ndarray, "R T K"],
    pictures: Sequence[int],
    share: float,
) -> Float32[np.ndarray, "R T"]:
    """The propagated maps; `share` of a score comes from patches that are alike. Rows of one picture are adjacent.

    Patches outside the picture take no part and keep their value, as do maps that are constant or not finite. A map
    whose patches are not finite becomes NaN, which fails when it is written.
    """
    propagated_RT = map_RT.copy()
    with one_thread():
        for _, group in groupby(range(len(pictures)), key=lambda row: pictures[row]):
            group_rows = list(group)
            valid_T = valid_RT[group_rows[0]]
            rows = [row for row in group_rows if _has_structure(map_RT[row, valid_T])]
            if not rows:
                continue
            patches_VK = torch.from_numpy(patches_RTK[rows[0]][valid_T]).float()
            if not patches_VK.isfinite().all():
                propagated_RT[rows] = np.nan
                continue
            walk = Walk(affinity(patches_VK), share)
            for row in rows:  # one at a time, so that no bit depends on the other rows
                propagated_RT[row, valid_T] = walk.spread(map_RT[row, valid_T])
    return propagated_RT


def _has_structure(scores: Float32[np.ndarray, " V"]) -> bool:
    return bool(np.isfinite(scores).all() and np.any(scores != scores[:1]))


def affinity(patches_VK: Float32[Tensor, "V K"]) -> Float64[Tensor, "V V"]:
    """A symmetric weight, cosine^POWER, for each pair of patches of which one is among the other's nearest.

    Patches that are equally near are all taken, so that the order of patches does not matter. A patch that is like no
    other is its own neighbour, and keeps its score.
    """
    unit_VK = normalize(patches_VK, dim=1)
    cosine_VV = (unit_VK @ unit_VK.T).clamp(min=0).fill_diagonal_(0)
    last = -min(NEIGHBOURS, len(cosine_VV))  # torch.topk takes ten times as long as this
    last_V1 = torch.from_numpy(np.partition(cosine_VV.numpy(), last, axis=1)[:, last, None])
    near_VV = torch.where(cosine_VV >= last_V1, cosine_VV, 0)
    weight_VV = torch.maximum(near_VV, near_VV.T).double() ** POWER
    weight_VV.diagonal().copy_(weight_VV.sum(dim=1) == 0)
    return weight_VV


class Walk:
    """The random walk over an affinity W with degrees D, factorised once.

    (D - share·W)·x = (1 - share)·D·y is symmetric and positive definite. It is solved as a dense system, which takes
    12 ms for 784 patches and 70 ms for 1,600, whatever the picture. A sparse solver is faster up to 16 neighbours only,
    and its time grows where many patches are alike.
    """

    def __init__(self, weight_VV: Float64[Tensor, "V V"], share: float) -> None:
        degree_V = weight_VV.sum(dim=1)
        self._source_V = (1 - share) * degree_V
        self._factor_VV = torch.linalg.cholesky(torch.diag(degree_V) - share * weight_VV)

    def spread(self, scores: Float32[np.ndarray, " V"]) -> Float32[np.ndarray, " V"]:
        source_V1 = (self._source_V * torch.from_numpy(scores))[:, None]
        spread = torch.cholesky_solve(source_V1, self._factor_VV)[:, 0].numpy().astype(np.float32)
        return np.clip(spread, scores.min(), scores.max())  # whatever the rounding
