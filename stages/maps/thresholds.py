"""Otsu's threshold of soft maps, and the share of a map above a threshold.

Letters: B maps, T patches.

Maps are as stored, float16 or float32. A threshold is a number of that type, at or above the largest value left out and
below the smallest value kept, so that `map > threshold` is the same set everywhere. It is the middle of the two,
because maps are interpolated before they are cut. Only valid patches count; the others are never read. A constant map
has no foreground: its threshold is its value.
"""

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64

PatchMaps = Float32[np.ndarray, "B T"] | Float16[np.ndarray, "B T"]


def otsu(map_BT: PatchMaps, valid: Bool[np.ndarray, "B T"]) -> tuple[Float32[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """Thresholds, and which maps are constant.

    The first cut between two values with the largest between-class variance (Otsu 1979). Exact, unlike
    skimage.filters.threshold_otsu, which uses a histogram of 256 bins.
    """
    refuse_unusable(map_BT, valid)
    num_valid_B1 = valid.sum(axis=1, keepdims=True)
    sorted_BT = np.sort(np.where(valid, map_BT, np.float32(np.inf)), axis=1)
    size_T = np.arange(1, map_BT.shape[1] + 1)  # of the lower class
    # Relative to the lowest value, so that maps of little contrast lose no digits.
    rise_BT = np.where(size_T <= num_valid_B1, sorted_BT, sorted_BT[:, :1]).astype(np.float64) - sorted_BT[:, :1]
    lower_BT = rise_BT.cumsum(axis=1)
    next_BT = np.concatenate([sorted_BT[:, 1:], sorted_BT[:, -1:]], axis=1)
    is_cut_BT = (size_T < num_valid_B1) & (sorted_BT < next_BT)
    pairs_BT = np.where(is_cut_BT, size_T * (num_valid_B1 - size_T), 1)
    between_BT = (lower_BT * num_valid_B1 - lower_BT[:, -1:] * size_T) ** 2 / pairs_BT
    best_B1 = np.where(is_cut_BT, between_BT, -1).argmax(axis=1)[:, None]
    # Without a cut this is the lowest value, followed by an equal one or infinity; both give the lowest.
    low_B, high_B = (np.take_along_axis(values_BT, best_B1, axis=1)[:, 0] for values_BT in (sorted_BT, next_BT))
    return middle(low_B, high_B, map_BT.dtype), ~is_cut_BT.any(axis=1)


def foreground_share(
    map_BT: PatchMaps, threshold: Float32[np.ndarray, " B"], valid: Bool[np.ndarray, "B T"]
) -> Float64[np.ndarray, " B"]:
    """The share of each map's valid patches that exceeds its threshold."""
    refuse_unusable(map_BT, valid)
    return ((map_BT > threshold[:, None]) & valid).sum(axis=1) / valid.sum(axis=1)


def middle(
    low: Float32[np.ndarray, " B"], high: Float32[np.ndarray, " B"], dtype: np.dtype[np.floating]
) -> Float32[np.ndarray, " B"]:
    """A number of the type midway between two values: at or above `low` and, if they differ, below `high`; `low` if
    `high` is infinite."""
    middle_B = ((low.astype(np.float64) + high) / 2).astype(dtype)
    return np.where(middle_B < high, middle_B, low).astype(np.float32)


def refuse_unusable(map_BT: PatchMaps, valid: Bool[np.ndarray, "B T"]) -> None:
    """Rows with such maps must fail before their threshold is computed."""
    assert valid.any(axis=1).all(), "a map without valid patches has no threshold"
    assert np.isfinite(map_BT, where=valid, out=np.ones_like(valid)).all(), "a map that is not finite has no threshold"
