"""Label maps and score stacks from a picture's soft maps and a background rule.

Letters: K rows (soft maps) of one picture, H W pixels.

Labels here are local to the picture: 0 background, 1 2 … its classes by ascending index, 255 ignore. The sources break
ties by array order; here a tie of two classes is 255, and a class must exceed the background.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.errors import ConfigError
from .background_rules import BackgroundRule, ConstantScore, OwnRow, PowerOfRest, RowThresholds, TwoScores


@dataclass(frozen=True, slots=True)
class PictureMaps:
    """The soft maps of one picture. A class with several maps takes their maximum."""

    maps_KHW: Float32[np.ndarray, "K H W"]
    thresholds_K: Float64[np.ndarray, " K"]
    labels_K: UInt8[np.ndarray, " K"]  # local labels; 0 marks the background's own row


def levels(background: BackgroundRule) -> tuple[BackgroundRule, ...]:
    """The rules to label by, one after the other; `join_levels` joins the label maps of two."""
    if isinstance(background, TwoScores):
        return ConstantScore(background.high), ConstantScore(background.low)
    return (background,)


def join_levels(high_HW: UInt8[np.ndarray, "H W"], low_HW: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Foreground of the high background score; background where both label maps have it; else 255
    (irn, step/cam_to_ir_label.py:36-40)."""
    joined_HW = np.where(high_HW == BACKGROUND, np.uint8(IGNORE), high_HW)
    joined_HW[(high_HW == BACKGROUND) & (low_HW == BACKGROUND)] = BACKGROUND
    return joined_HW


def hard_labels(rows: PictureMaps, background: BackgroundRule) -> UInt8[np.ndarray, "H W"]:
    """The label map by the rule alone, without a refiner."""
    if isinstance(background, TwoScores):
        high, low = levels(background)
        return join_levels(hard_labels(rows, high), hard_labels(rows, low))
    if isinstance(background, RowThresholds):
        rows = _classes_only(rows, background)
        is_candidate_KHW = rows.maps_KHW > rows.thresholds_K[:, None, None]
        scores_KHW = np.where(is_candidate_KHW, rows.maps_KHW, np.float32(-np.inf))
        return _highest(np.full(scores_KHW.shape[1:], -np.inf, np.float32), scores_KHW, rows.labels_K)
    background_HW, classes = _score_background(rows, background)
    return _highest(background_HW, classes.maps_KHW, classes.labels_K)


def soft_scores(rows: PictureMaps, background: BackgroundRule) -> Float32[np.ndarray, "labels H W"]:
    """One score per local label, background first, for refiners that weigh scores. Not for `two`: call it per level.

    Our own, for thresholded rows, which no source weighs: each map is stretched linearly on either side of its
    threshold so that the threshold maps to 0.5; the background has 1 − the highest.
    """
    background_HW, classes = _score_background(rows, background)
    num_labels = 1 + int(classes.labels_K.max(initial=0))
    scores_LHW = np.full((num_labels, *background_HW.shape), -np.inf, np.float32)
    scores_LHW[BACKGROUND] = background_HW
    for map_HW, label in zip(classes.maps_KHW, classes.labels_K, strict=True):
        np.maximum(scores_LHW[label], map_HW, out=scores_LHW[label])
    return scores_LHW


def highest_labels(scores_LHW: Float32[np.ndarray, "labels H W"]) -> UInt8[np.ndarray, "H W"]:
    """The label map of the scores of `soft_scores`, by the rule of `hard_labels`."""
    return _highest(scores_LHW[BACKGROUND], scores_LHW[1:], np.arange(1, len(scores_LHW), dtype=np.uint8))


def _score_background(rows: PictureMaps, background: BackgroundRule) -> tuple[Float32[np.ndarray, "H W"], PictureMaps]:
    """The background's score, and the class rows on the same scale."""
    if isinstance(background, OwnRow):
        return _own_row(rows)
    rows = _classes_only(rows, background)
    size = rows.maps_KHW.shape[1:]
    match background:
        case ConstantScore(score):
            return np.full(size, score, np.float32), rows
        case PowerOfRest(exponent):
            # Clipped: above 1 the base would be negative.
            rest_HW = 1 - np.clip(rows.maps_KHW.max(axis=0, initial=0), 0, 1)
            return np.power(rest_HW, np.float32(exponent)), rows
        case RowThresholds():
            stretched_KHW = _stretch_maps(rows.maps_KHW, rows.thresholds_K)
            return 1 - stretched_KHW.max(axis=0, initial=0), PictureMaps(
                stretched_KHW, rows.thresholds_K, rows.labels_K
            )
    raise AssertionError(f"{background} has levels")


def _own_row(rows: PictureMaps) -> tuple[Float32[np.ndarray, "H W"], PictureMaps]:
    is_background_K = rows.labels_K == BACKGROUND
    if not is_background_K.any():
        raise ConfigError(
            "background rule map needs a background map, and the maps have no row of class 0; choose another rule, "
            "such as rows, or maps of a method that predicts background"
        )
    kept = ~is_background_K
    classes = PictureMaps(rows.maps_KHW[kept], rows.thresholds_K[kept], rows.labels_K[kept])
    return rows.maps_KHW[is_background_K].max(axis=0), classes


def _classes_only(rows: PictureMaps, background: BackgroundRule) -> PictureMaps:
    if (rows.labels_K == BACKGROUND).any():
        raise ConfigError(
            f"background rule {background} ignores the maps' own background (class 0); choose the rule map, which "
            "reads it"
        )
    return rows


def _stretch_maps(
    maps_KHW: Float32[np.ndarray, "K H W"], thresholds_K: Float64[np.ndarray, " K"]
) -> Float32[np.ndarray, "K H W"]:
    """Maps 0 to 0, the threshold to 0.5 and 1 to 1. A map that leaves [0, 1] is stretched from its own ends."""
    tiny = np.finfo(np.float32).tiny
    stretched_KHW = np.empty_like(maps_KHW)
    for map_HW, threshold, out_HW in zip(maps_KHW, thresholds_K, stretched_KHW, strict=True):
        lowest, highest = min(0.0, float(map_HW.min())), max(1.0, float(map_HW.max()))
        below_HW = (map_HW - np.float64(lowest)) / max(threshold - lowest, tiny)
        above_HW = 1 + (map_HW - threshold) / max(highest - threshold, tiny)
        out_HW[:] = 0.5 * np.where(map_HW > threshold, above_HW, below_HW)
    return stretched_KHW


def _highest(
    background_HW: Float32[np.ndarray, "H W"],
    scores_KHW: Float32[np.ndarray, "K H W"],
    labels_K: UInt8[np.ndarray, " K"],
) -> UInt8[np.ndarray, "H W"]:
    if not len(labels_K):
        return np.zeros(background_HW.shape, np.uint8)
    best_HW = scores_KHW.max(axis=0)
    label_HW = labels_K[scores_KHW.argmax(axis=0)]
    is_other_KHW = labels_K[:, None, None] != label_HW
    is_tied_HW = ((scores_KHW == best_HW) & is_other_KHW).any(axis=0)
    label_HW[is_tied_HW] = IGNORE
    label_HW[~(best_HW > background_HW)] = BACKGROUND
    return label_HW
