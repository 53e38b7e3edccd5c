"""Floats as signed bytes with one scale per token, symmetric about 0.

Letters: D the values of one token.
"""

import numpy as np
from jaxtyping import Float, Float32, Int8

LARGEST = 127  # −128 is the fill of an array that holds nothing yet


def quantize(
    values: Float[np.ndarray, "*tokens D"],
) -> tuple[Int8[np.ndarray, "*tokens D"], Float32[np.ndarray, " *tokens"]]:
    """Bytes and scales of finite values; off by half a scale at most, which is 1/254 of the token's largest value."""
    exact = values.astype(np.float32, copy=False)
    scale = np.abs(exact).max(axis=-1, initial=0) / np.float32(LARGEST)
    assert np.isfinite(scale).all(), "values that are not finite have no scale"
    # Below the smallest normal number the scale itself would be too coarse.
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(0), scale).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.float32(np.inf))
    return np.clip(np.rint(exact / divisor[..., None]), -LARGEST, LARGEST).astype(np.int8), scale


def dequantize(
    values: Int8[np.ndarray, "*tokens D"], scale: Float32[np.ndarray, " *tokens"]
) -> Float32[np.ndarray, "*tokens D"]:
    return values.astype(np.float32) * scale[..., None]


def scale_name(field: str) -> str:
    """The array that holds the scales of a field of signed bytes."""
    return f"{field}_scale"
