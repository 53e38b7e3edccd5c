"""Scores of few-shot episodes: classification (exact ratio) and segmentation (mIoU).

Letters: E episodes, N ways, H W pixels, Q query pictures, K classes that occur.

Source: CST, common/evaluation.py. The exact ratio is the share of episodes whose ways are all right. The mIoU sums
pixels per class over all episodes, so that false positives lower a class's IoU; it leaves out background. Two details
differ from the original: a class that nowhere occurs is left out of the mean, not counted as 0 (none of its 1,000
episodes has one), and sums are integers, since float32 rounds above 16.8 million.

Intervals come from a bootstrap over query pictures, since a picture may be the query of several episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE
from ..choices import Void
from .intervals import BootstrapGroup, Interval, bootstrap, bootstrap_mean, count_columns
from .iou import ClassScores, Counts, iou_scores, mean_iou, pixel_counts, stack_counts, sum_counts


@dataclass(frozen=True, slots=True)
class Answered:
    """Episodes of one test, side by side."""

    queries: tuple[str, ...]  # image ids
    counts: tuple[Counts, ...]
    is_exact: Bool[np.ndarray, " E"]


@dataclass(frozen=True, slots=True)
class FewShotScores:
    """Shares, not per cent."""

    miou: Interval
    exact_ratio: Interval
    classes: tuple[ClassScores, ...]  # without background
    num_episodes: int
    num_queries: int  # different pictures


def episode_counts(
    painted_HW: UInt8[np.ndarray, "H W"], truth_HW: UInt8[np.ndarray, "H W"], classes: Sequence[int], void: Void
) -> Counts:
    """One episode's pixels per class.

    The prediction holds 0 or a way, 1 to N. Truth is the picture's whole label map: classes outside the episode are
    background. Truth of 255 is left out ("ignore", as in HSNet) or background ("background", as in CST's code, which
    intends to leave it out but does not).
    """
    is_way = np.isin(np.arange(256), classes)
    truth_table = np.where(is_way, np.arange(256), BACKGROUND).astype(np.uint8)
    truth_table[IGNORE] = IGNORE if void == "ignore" else BACKGROUND
    way_table = np.array([BACKGROUND, *classes], np.uint8)
    return pixel_counts(truth_table[truth_HW], way_table[painted_HW])


def exact_episodes(found: Bool[np.ndarray, "E N"], true: Bool[np.ndarray, "E N"]) -> Bool[np.ndarray, " E"]:
    """Episodes in which no way is wrong."""
    return np.all(found == true, axis=1)


def few_shot_scores(answered: Answered, *, seed: int = 0, num_resamples: int = 1000) -> FewShotScores:
    """The scores of one test, such as one fold."""
    miou, ratio = _miou_columns(answered), _ratio_columns(answered)
    total = iou_scores(sum_counts(answered.counts))
    return FewShotScores(
        bootstrap(*miou, seed=seed, num_resamples=num_resamples),
        bootstrap(*ratio, seed=seed, num_resamples=num_resamples),
        tuple(scores for scores in total.classes if scores.label != BACKGROUND),
        len(answered.queries),
        len(ratio[0]),
    )


def mean_of_folds(folds: Sequence[Answered], *, seed: int = 0, num_resamples: int = 1000) -> tuple[Interval, Interval]:
    """mIoU and exact ratio, each averaged over folds."""
    miou = bootstrap_mean([_miou_columns(fold) for fold in folds], seed=seed, num_resamples=num_resamples)
    ratio = bootstrap_mean([_ratio_columns(fold) for fold in folds], seed=seed, num_resamples=num_resamples)
    return miou, ratio


def _miou_columns(answered: Answered) -> BootstrapGroup:
    place_E = _places(answered.queries)
    episodes = stack_counts(answered.counts)
    pixels_QK3 = np.zeros((1 + place_E.max(initial=-1), *episodes.pixels.shape[1:]), np.int64)
    np.add.at(pixels_QK3, place_E, episodes.pixels)
    return count_columns(Counts(episodes.classes, pixels_QK3), partial(mean_iou, with_background=False))


def _ratio_columns(answered: Answered) -> BootstrapGroup:
    place_E = _places(answered.queries)
    columns_Q2 = np.stack([np.bincount(place_E, answered.is_exact), np.bincount(place_E)], axis=1).astype(np.float64)
    return columns_Q2, lambda sums_R2: sums_R2[:, 0] / sums_R2[:, 1]


def _places(queries: Sequence[str]) -> Int64[np.ndarray, " E"]:
    """The index of each episode's query picture among the distinct ones."""
    places = {image: place for place, image in enumerate(dict.fromkeys(queries))}
    return np.array([places[image] for image in queries], np.int64)
