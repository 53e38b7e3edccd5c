"""The patches that hold most of the class token's attention, as DINO visualises them.

Letters: B pictures, H heads, T patches.

Source: visualize_attention.py of facebookresearch/dino, `--threshold`. DINO shows each head separately. Two choices are
this project's own: the mean over heads, and keeping patches of equal attention together (DINO leaves that to the sort).
"""

import numpy as np
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from .thresholds import PatchMaps, middle, refuse_unusable


def attention_map(attention: Float[Tensor, "B H T"], valid: Bool[np.ndarray, "B T"]) -> Float32[np.ndarray, "B T"]:
    """The mean over heads of one block's class attention: 1 at the most attended valid patch, 0 at invalid patches.

    It is divided by the largest value, because float16 would keep few digits of a share of the sum. It is not shifted
    to a minimum of 0, so that a stored map keeps each patch's share of the attention.
    """
    map_BT = np.where(valid, attention.float().mean(dim=1).cpu().numpy(), np.float32(0))
    return map_BT / _largest(map_BT)


def head_attention_maps(
    attention: Float[Tensor, "B H T"], valid: Bool[np.ndarray, "B T"]
) -> Float32[np.ndarray, "B H T"]:
    """Each head's attention, divided by the maximum of their mean: a head may exceed 1 where the others are low."""
    maps_BHT = np.where(valid[:, None], attention.float().cpu().numpy(), np.float32(0))
    return maps_BHT / _largest(maps_BHT.mean(axis=1))[:, None]


def _largest(map_BT: Float32[np.ndarray, "B T"]) -> Float32[np.ndarray, "B 1"]:
    """The largest value of each map; 1 for an empty map."""
    largest_B1 = map_BT.max(axis=1, keepdims=True)
    return np.where(largest_B1 > 0, largest_B1, np.float32(1))


def mass_thresholds(
    map_BT: PatchMaps, valid: Bool[np.ndarray, "B T"], keep_mass: float = 0.6
) -> tuple[Float32[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """Thresholds as thresholds.py defines them, and which maps are constant.

    Above a threshold lies the smallest set of most attended patches that holds `keep_mass` of the map's sum over valid
    patches. Patches that are equal in the stored map count as equal.
    """
    assert 0 < keep_mass <= 1, f"a share to keep is above 0 and at most 1, not {keep_mass}"
    refuse_unusable(map_BT, valid)
    mass_BT = np.where(valid, map_BT, np.float32(0))
    assert (mass_BT >= 0).all(), "attention is never negative"
    sorted_BT = -np.sort(-mass_BT, axis=1)
    held_BT = sorted_BT.cumsum(axis=1, dtype=np.float64)
    last_B1 = (held_BT < keep_mass * held_BT[:, -1:]).sum(axis=1, keepdims=True)
    smallest_B1 = np.take_along_axis(sorted_BT, last_B1, axis=1)
    # If the patches left out have no attention, 0 is the largest value left out.
    largest_out_B = np.where(mass_BT < smallest_B1, mass_BT, np.float32(0)).max(axis=1)
    is_flat_B = np.where(valid, map_BT, sorted_BT[:, :1]).min(axis=1) == sorted_BT[:, 0]
    low_B = np.where(is_flat_B, smallest_B1[:, 0], largest_out_B)
    return middle(low_B, smallest_B1[:, 0], map_BT.dtype), is_flat_B
