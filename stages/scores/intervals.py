"""Confidence intervals of scores by percentile bootstrap over images.

Letters: N images, M columns that are summed over images, R resamples drawn at a time, K classes.

A resample draws as many images as there are, with replacement, and recomputes the statistic from its sums (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images are sorted by their columns first, so that the
interval does not depend on the order in which they were read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from .iou import Counts, nan_to_none, stack_counts

_DRAWN_AT_A_TIME = 50  # keeps the weights of 100,000 images below 50 MB

Statistic = Callable[[Float64[np.ndarray, "R M"]], Float64[np.ndarray, " R"]]
BootstrapGroup = tuple[Float64[np.ndarray, "_ _"], Statistic]  # columns "N M" of the group, and their statistic


@dataclass(frozen=True, slots=True)
class Interval:
    """`estimate` is None if undefined on all images, `low` and `high` if undefined on every resample."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    num_resamples: int
    num_undefined: int  # resamples left out because their statistic is NaN

    def as_json(self) -> dict[str, float | None]:
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "level": self.level}


def bootstrap(
    columns_NM: Float64[np.ndarray, "N M"],
    statistic: Statistic,
    *,
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of a statistic of sums over images, which is NaN where undefined.

    For the difference of two methods on the same images, put the columns of both side by side.
    """
    assert 0 < level < 1, level
    assert num_resamples >= 1, num_resamples
    if not columns_NM.size:
        return Interval(None, None, None, level, num_resamples, num_resamples)
    generator = np.random.default_rng(seed)
    estimate, values = _resample_statistic(columns_NM, statistic, generator, num_resamples)
    return _interval(estimate, values, level)


def bootstrap_mean(
    groups: Sequence[BootstrapGroup],
    *,
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of the mean over groups, such as the folds of a benchmark. Images are drawn within their group. The
    mean is undefined if one group's statistic is."""
    assert groups, "a mean needs at least one group"
    if not all(columns_NM.size for columns_NM, _ in groups):
        return Interval(None, None, None, level, num_resamples, num_resamples)
    generator = np.random.default_rng(seed)
    results = [_resample_statistic(columns_NM, statistic, generator, num_resamples) for columns_NM, statistic in groups]
    values = np.mean([values for _, values in results], axis=0)
    return _interval(float(np.mean([estimate for estimate, _ in results])), values, level)


def counts_interval(
    images: Counts,
    statistic: Callable[[Counts], Float64[np.ndarray, "*sets"]],
    *,
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of a score of stacked images, such as `partial(mean_iou, with_background=True)`."""
    return bootstrap(*count_columns(images, statistic), seed=seed, num_resamples=num_resamples, level=level)


def count_columns(
    images: Counts, statistic: Callable[[Counts], Float64[np.ndarray, "*sets"]]
) -> tuple[Float64[np.ndarray, "N M"], Statistic]:
    """A score of stacked images in the form that `bootstrap` and `bootstrap_mean` take."""
    pixels_NK3: Int64[np.ndarray, "N K 3"] = images.pixels

    def of_sums(sums_RM: Float64[np.ndarray, "R M"]) -> Float64[np.ndarray, " R"]:
        # The sums are exact up to 2⁵³ pixels.
        return statistic(Counts(images.classes, sums_RM.astype(np.int64).reshape(-1, *pixels_NK3.shape[1:])))

    return pixels_NK3.reshape(len(pixels_NK3), pixels_NK3.shape[1] * 3).astype(np.float64), of_sums


def _resample_statistic(
    columns_NM: Float64[np.ndarray, "N M"], statistic: Statistic, generator: np.random.Generator, num_resamples: int
) -> tuple[float, Float64[np.ndarray, " resamples"]]:
    """The statistic of all images, and of each resample."""
    sorted_NM = columns_NM[np.lexsort(columns_NM.T)]
    drawn = [
        statistic(_weights(generator, min(_DRAWN_AT_A_TIME, num_resamples - start), len(sorted_NM)) @ sorted_NM)
        for start in range(0, num_resamples, _DRAWN_AT_A_TIME)
    ]
    return float(statistic(sorted_NM.sum(axis=0, keepdims=True))[0]), np.concatenate(drawn)


def _interval(estimate: float, values: Float64[np.ndarray, " resamples"], level: float) -> Interval:
    known = values[~np.isnan(values)]
    low, high = (None, None) if not len(known) else np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(nan_to_none(estimate), low, high, level, len(values), len(values) - len(known))


def difference_interval(
    before: Sequence[Counts],
    after: Sequence[Counts],
    statistic: Callable[[Counts], Float64[np.ndarray, "*sets"]],
    *,
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of after − before on the same images in the same order, which are drawn in pairs."""
    both = stack_counts([*before, *after])
    columns_NM = both.pixels.reshape(len(both.pixels), -1).astype(np.float64)
    columns_NM = np.concatenate([columns_NM[: len(before)], columns_NM[len(before) :]], axis=1)

    def of_sums(sums_RM: Float64[np.ndarray, "R M"]) -> Float64[np.ndarray, " R"]:
        pixels = sums_RM.astype(np.int64).reshape(len(sums_RM), 2, -1, 3)
        scores_R2 = statistic(Counts(both.classes, pixels))
        return scores_R2[:, 1] - scores_R2[:, 0]

    return bootstrap(columns_NM, of_sums, seed=seed, num_resamples=num_resamples, level=level)


def _weights(generator: np.random.Generator, num_resamples: int, num_images: int) -> Float64[np.ndarray, "R N"]:
    """Draw counts per image: multinomial, as counts of uniform indices, which is faster for many images."""
    drawn_RN = generator.integers(num_images, size=(num_resamples, num_images))
    return np.stack([np.bincount(row, minlength=num_images) for row in drawn_RN]).astype(np.float64)
