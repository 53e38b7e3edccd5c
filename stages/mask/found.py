"""FOUND: the background first, then a linear head that tells it from objects. Learns without labels.

Siméoni, Sekkat, Puy, Vobecky, Zablocki, Pérez, *Unsupervised Object Localization: Observing the Background to Discover
Objects*, CVPR 2023; written anew after github.com/valeoai/FOUND (Apache-2.0): `bkg_seg.py`, `main_found_train.py`.

Letters: B pictures, H heads, T patches in a grid of R rows and C columns, K width of the feature, E width of a head.

As published: the patch with the least attention, after heads are weighted by their sparsity, is the seed; patches whose
weighted features have a cosine above 0.3 with it are background, and all others are coarse foreground. A head of one
weight a channel learns the coarse foreground, then its own prediction.

Different from the published code:

- The bilateral solver, which snaps targets to edges of the picture, works on pictures; only tokens are here. Its
  replacement has the same form (a data term, and a smoothness term between neighbours) on the grid of patches, where
  two neighbours agree by the cosine of their features instead of their colours. As published, its result is used only
  if its IoU with the mask is above 0.5.
- The published code drops the largest connected part of a solved mask and fills holes; here, neither is done.
- Pictures are not augmented, because their tokens are stored.
- Patches that show only padding are neither seeds nor examples, and have no part in the mean attention.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ..maps.one_thread import one_thread

BACKGROUND_COSINE = 0.3  # found_DUTS-TR.yaml: bkg_th
LEAST_IOU = 0.5  # misc.py: bs_iou_threshold
# Of the smoothness term; chosen on voc-mini. The weight of two neighbours is SMOOTHNESS × cosine ** SHARPNESS.
SMOOTHNESS, SHARPNESS, ROUNDS = 64.0, 16, 10
_EPSILON = 1e-10
_NEIGHBOURS = (
    (0, 1),
    (1, 0),
    (1, 1),
    (1, -1),
)  # rows, columns; the other four are these seen from the other side


@dataclass(frozen=True, slots=True)
class FoundHead:
    """What `fit` has learned."""

    weight_K: Float32[Tensor, " K"]
    bias: Float32[Tensor, ""]

    def probability(self, patches: Float[Tensor, "B T K"]) -> Float32[Tensor, "B T"]:
        """Picture by picture, so that a picture's numbers do not depend on its batch."""
        with one_thread():
            logits = [torch.mv(patches_TK.float(), self.weight_K) + self.bias for patches_TK in patches]
            return torch.sigmoid(torch.stack(logits))


def head_weights(attention: Float[Tensor, "B H T"], valid: Bool[Tensor, "B T"]) -> Float32[Tensor, "B H"]:
    """Sparse heads weigh more: the logarithm of all heads' share of patches above the picture's mean attention, divided
    by the head's own."""
    attention_BHT, valid_B1T = attention.float() * valid[:, None], valid[:, None]
    num_B = valid.sum(dim=1)
    mean_B = attention_BHT.sum(dim=(1, 2)) / (num_B * attention.shape[1])
    is_above_BHT = (attention_BHT > mean_B[:, None, None]) & valid_B1T
    share_BH = is_above_BHT.sum(dim=2) / num_B[:, None] + _EPSILON
    return torch.log(share_BH.sum(dim=1, keepdim=True) / share_BH)


def background_seeds(
    attention: Float[Tensor, "B H T"], valid: Bool[Tensor, "B T"], weights: Float32[Tensor, "B H"]
) -> Int64[Tensor, " B"]:
    """The valid patch with the least weighted attention; the first of equals."""
    total_BT = (attention.float() * weights[..., None]).sum(dim=1)
    return total_BT.masked_fill(~valid, torch.inf).argmin(dim=1)


def coarse_foreground(
    patches: Float[Tensor, "B T K"], attention: Float[Tensor, "B H T"], valid: Bool[Tensor, "B T"], heads: int
) -> Bool[Tensor, "B T"]:
    """All valid patches but the background. Features of one part, such as tokens, are compared without head weights."""
    weights_BH = head_weights(attention, valid)
    seed_B = background_seeds(attention, valid, weights_BH)
    masks = []
    for patches_TK, weights_H, seed in zip(patches, weights_BH, seed_B, strict=True):
        parts_THE = patches_TK.float().unflatten(1, (heads, -1))
        weighted_TK = (parts_THE * weights_H[:, None] if heads > 1 else parts_THE).flatten(1)
        unit_TK = normalize(weighted_TK, dim=1)
        masks.append(torch.mv(unit_TK, unit_TK[seed]) <= BACKGROUND_COSINE)
    return torch.stack(masks) & valid


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Pairs of neighbours, in one of four directions: their places in a grid, and how strongly they agree."""

    here: tuple[slice, ...]
    there: tuple[slice, ...]
    weight: Float32[Tensor, "B R C"]  # 0 at padding; a row or a column smaller than the grid


def connect_neighbours(
    patches: Float[Tensor, "B T K"], valid: Bool[Tensor, "B T"], grid: tuple[int, int]
) -> list[Neighbours]:
    """The smoothness term of pictures. Computed picture by picture, which stays in the processor's cache."""
    places, valid_BRC = list(_neighbour_places()), valid.reshape(-1, *grid)
    cosines: list[list[Tensor]] = [[] for _ in places]
    for patches_TK in patches:
        unit_RCK = normalize(patches_TK.float(), dim=1).reshape(*grid, -1)
        for own, (here, there) in zip(cosines, places, strict=True):
            own.append((unit_RCK[here[1:]] * unit_RCK[there[1:]]).sum(dim=-1))
    return [
        Neighbours(
            here,
            there,
            SMOOTHNESS * torch.stack(own).clamp_min(0) ** SHARPNESS * (valid_BRC[here] & valid_BRC[there]),
        )
        for own, (here, there) in zip(cosines, places, strict=True)
    ]


def smooth_masks(
    masks: Bool[Tensor, "B T"], neighbours: Sequence[Neighbours], grid: tuple[int, int]
) -> Bool[Tensor, "B T"]:
    """Masks of valid patches that follow borders between unlike ones, where they still agree with the given ones."""
    given_BRC = masks.float().reshape(-1, *grid)
    soft_BRC = given_BRC
    for _ in range(ROUNDS):  # Jacobi steps of the data and the smoothness term together
        total_BRC, weight_BRC = given_BRC.clone(), torch.ones_like(given_BRC)
        for pair in neighbours:
            total_BRC[pair.here] += pair.weight * soft_BRC[pair.there]
            total_BRC[pair.there] += pair.weight * soft_BRC[pair.here]
            weight_BRC[pair.here] += pair.weight
            weight_BRC[pair.there] += pair.weight
        soft_BRC = total_BRC / weight_BRC
    smoothed_BT = (soft_BRC > 0.5).flatten(1)
    inside_B, either_B = (smoothed_BT & masks).sum(dim=1), (smoothed_BT | masks).sum(dim=1)
    is_kept_B = inside_B > LEAST_IOU * either_B
    return torch.where(is_kept_B[:, None], smoothed_BT, masks)


def _neighbour_places() -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Two views of a grid in which the same place holds two neighbours; once for each pair of directions."""
    for down, right in _NEIGHBOURS:
        above, below = slice(None, -down or None), slice(down, None)
        left, beside = slice(None, -abs(right) or None), slice(abs(right), None)
        columns = (left, beside) if right >= 0 else (beside, left)
        yield (slice(None), above, columns[0]), (slice(None), below, columns[1])
