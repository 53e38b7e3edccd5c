"""int8 quantisation of floats with one scale per token, symmetric about 0.

Letters: D values of one token.
"""

import numpy as np
from jaxtyping import Float, Float32, Int8

LARGEST = 127  # −128 is the fill of unused slots


def quantize(
    values: Float[np.ndarray, "*tokens D"],
) -> tuple[Int8[np.ndarray, "*tokens D"], Float32[np.ndarray, " *tokens"]]:
    """int8 values and scales of finite floats; the error is at most half a scale, 1/254 of the token's maximum."""
    exact = values.astype(np.float32, copy=False)
    scale = np.abs(exact).max(axis=-1, initial=0) / np.float32(LARGEST)
    assert np.isfinite(scale).all(), "values that are not finite have no scale"
    # A subnormal scale would be too coarse.
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(0), scale).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.float32(np.inf))
    return np.clip(np.rint(exact / divisor[..., None]), -LARGEST, LARGEST).astype(np.int8), scale


def dequantize(
    values: Int8[np.ndarray, "*tokens D"], scale: Float32[np.ndarray, " *tokens"]
) -> Float32[np.ndarray, "*tokens D"]:
    return values.astype(np.float32) * scale[..., None]


def scale_name(field: str) -> str:
    """The name of the array that holds the scales of an int8 field."""
    return f"{field}_scale"
