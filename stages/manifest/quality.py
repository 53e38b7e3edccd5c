"""Measures pseudo-labels without ground truth, per picture and class.

Letters: H W pixels.

An undecided pixel (255) is neither inside nor outside a class.
"""

import math

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage  # type: ignore[import-untyped]

from ...manifests.classes import IGNORE
from .quality_rules import Quality


def measure_quality(
    label_HW: UInt8[np.ndarray, "H W"],
    label: int,
    soft_HW: Float32[np.ndarray, "H W"] | None = None,
    before_HW: UInt8[np.ndarray, "H W"] | None = None,
    other_HW: UInt8[np.ndarray, "H W"] | None = None,
) -> Quality:
    """The measures of one class: `soft_HW` is its soft map, `before_HW` the label map before refining, `other_HW` that
    of another method. A pixel that is undecided in one of two label maps counts as disagreement."""
    inside_HW = label_HW == label
    outside_HW = ~inside_HW & (label_HW != IGNORE)
    sizes = _component_sizes(inside_HW)
    entropy_HW = None if soft_HW is None else _entropy(soft_HW)
    return Quality(
        area=float(inside_HW.mean()),
        border_touch=float(_border(inside_HW).mean()),
        num_components=len(sizes),
        largest_share=float(sizes.max() / sizes.sum()) if len(sizes) else None,
        mean_inside=_mean(soft_HW, inside_HW),
        mean_outside=_mean(soft_HW, outside_HW),
        entropy_inside=_mean(entropy_HW, inside_HW),
        entropy_outside=_mean(entropy_HW, outside_HW),
        agreement=None if before_HW is None else _iou(before_HW == label, inside_HW),
        method_agreement=None if other_HW is None else _iou(other_HW == label, inside_HW),
    )


def _component_sizes(mask_HW: Bool[np.ndarray, "H W"]) -> np.ndarray:
    component_HW = np.zeros(mask_HW.shape, np.int32)
    ndimage.label(mask_HW, structure=np.ones((3, 3), int), output=component_HW)
    return np.bincount(component_HW.ravel())[1:]


def _border(mask_HW: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, " border"]:
    border_HW = np.ones_like(mask_HW)
    border_HW[1:-1, 1:-1] = False
    return mask_HW[border_HW]


def _entropy(soft_HW: Float32[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    p_HW = np.clip(soft_HW.astype(np.float64), 0, 1)
    return _bits(p_HW) + _bits(1 - p_HW)


def _bits(p_HW: Float64[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    return -p_HW * np.log2(p_HW, out=np.zeros_like(p_HW), where=p_HW > 0)


def _mean(values_HW: np.ndarray | None, mask_HW: Bool[np.ndarray, "H W"]) -> float | None:
    if values_HW is None or not mask_HW.any():
        return None
    mean = float(values_HW[mask_HW].mean(dtype=np.float64))
    assert math.isfinite(mean), "soft maps are finite"
    return mean


def _iou(first_HW: Bool[np.ndarray, "H W"], second_HW: Bool[np.ndarray, "H W"]) -> float | None:
    union = int((first_HW | second_HW).sum())
    return int((first_HW & second_HW).sum()) / union if union else None
