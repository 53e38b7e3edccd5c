import math
from functools import partial

import numpy as np
import pytest

from maskmill.stages.evaluate.boundary import boundary_scores, mean_boundary_f, stack_boundaries
from maskmill.stages.scores.intervals import Interval, bootstrap, counts_interval, difference_interval
from maskmill.stages.scores.iou import Counts, mean_iou, pixel_counts, stack_counts

MIOU = partial(mean_iou, with_background=True)


def proportion(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def trials(hits: int, num: int) -> np.ndarray:
    columns = np.ones((num, 2))
    columns[hits:, 0] = 0
    return columns


def drawn_images(num: int) -> Counts:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, (num, 6, 6), np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 4, truth.shape, np.uint8))
    return stack_counts([pixel_counts(*pair) for pair in zip(truth, predicted.astype(np.uint8), strict=True)])


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def is_inside(interval: Interval) -> bool:
    low, high = ends(interval)
    return interval.estimate is not None and low < interval.estimate < high


def reordered(images: Counts, order: np.ndarray) -> Counts:
    return Counts(images.classes, images.pixels[order])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_of_a_proportion_it_is_the_normal_interval(level):
    found = bootstrap(trials(120, 400), proportion, num_resamples=4000, level=level)
    z = {0.8: 1.2816, 0.95: 1.96}[level]
    half = z * math.sqrt(0.3 * 0.7 / 400)
    assert found.estimate == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - half, abs=0.1 * half)
    assert found.high == pytest.approx(0.3 + half, abs=0.1 * half)


def test_it_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(400):
        found = bootstrap(trials(int(rng.binomial(100, 0.4)), 100), proportion, seed=seed, num_resamples=300)
        low, high = ends(found)
        held += low <= 0.4 <= high
    assert 0.91 <= held / 400 <= 0.98  # 0.95 give or take 3.5 standard errors


def test_miou_is_computed_anew_from_the_sums_of_each_resample():
    """Against the same draws, each resample gathered image by image."""
    images = drawn_images(30)
    order = np.lexsort(images.pixels.reshape(30, -1).T)
    drawn = np.random.default_rng(3).integers(30, size=(70, 30))
    values = [float(MIOU(Counts(images.classes, images.pixels[order][rows].sum(axis=0)))) for rows in drawn]
    found = counts_interval(images, MIOU, seed=3, num_resamples=70, level=0.9)
    assert (found.low, found.high) == pytest.approx((np.quantile(values, 0.05), np.quantile(values, 0.95)))


def test_the_estimate_is_the_score_of_all_images():
    images = drawn_images(30)
    assert counts_interval(images, MIOU).estimate == float(MIOU(Counts(images.classes, images.pixels.sum(axis=0))))


def test_it_depends_on_the_seed_and_on_nothing_else():
    images = drawn_images(80)
    shuffled = reordered(images, np.random.default_rng(1).permutation(80))
    first = counts_interval(images, MIOU)
    assert counts_interval(images, MIOU) == first
    assert counts_interval(shuffled, MIOU) == first
    assert counts_interval(images, MIOU, seed=1) != first
    assert is_inside(first)


def test_resamples_that_have_no_score_are_left_out_and_counted():
    """Of two images only one has foreground: a quarter of the resamples have none."""
    truth = [np.zeros((2, 2), np.uint8), np.eye(2, dtype=np.uint8)]
    images = stack_counts([pixel_counts(one, one) for one in truth])
    found = counts_interval(images, partial(mean_iou, with_background=False), num_resamples=2000)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)
    assert found.num_undefined == pytest.approx(500, abs=100)


def test_nothing_to_draw_from_has_no_interval():
    empty = counts_interval(stack_counts([]), MIOU)
    assert (empty.estimate, empty.low, empty.high) == (None, None, None)
    void = pixel_counts(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    assert counts_interval(stack_counts([void, void]), MIOU).low is None


def test_one_image_is_as_sure_as_it_can_be():
    found = bootstrap(trials(1, 1), proportion)
    assert (found.low, found.estimate, found.high) == (1, 1, 1)


def test_the_difference_of_two_methods_is_surer_than_their_scores():
    """Columns of both side by side: what makes an image hard for both cancels."""
    rng = np.random.default_rng(2)
    first = rng.binomial(100, rng.random(200)).astype(np.float64)
    columns = np.stack([first, np.minimum(first + 2, 100), np.full(200, 100.0)], axis=1)
    low, high = ends(bootstrap(columns, lambda sums: (sums[:, 1] - sums[:, 0]) / sums[:, 2]))
    low_alone, high_alone = ends(bootstrap(columns, lambda sums: sums[:, 0] / sums[:, 2]))
    assert low > 0
    assert high - low < 0.2 * (high_alone - low_alone)


def test_boundary_scores_have_one_too():
    rng = np.random.default_rng(4)
    truth = np.zeros((20, 30, 30), np.uint8)
    truth[:, 8:20, 8:20] = 1
    predicted = [np.roll(one, int(rng.integers(0, 4)), axis=0) for one in truth]
    _, sums_NK2 = stack_boundaries([boundary_scores(*pair) for pair in zip(truth, predicted, strict=True)])
    found = bootstrap(sums_NK2.reshape(20, -1), lambda sums: mean_boundary_f(sums.reshape(len(sums), -1, 2)))
    assert is_inside(found)


def test_of_a_difference_both_are_drawn_together():
    """The same counts twice differ by nothing at all, however wide the interval of each."""
    images = drawn_images(30)
    each = [Counts(images.classes, pixels) for pixels in images.pixels]
    found = difference_interval(each, each, MIOU)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    better = [Counts(one.classes, np.stack([one.pixels[:, 2]] * 3, axis=-1)) for one in each]
    found = difference_interval(each, better, MIOU)
    before = counts_interval(images, MIOU)
    assert before.estimate is not None
    assert found.estimate == pytest.approx(1 - before.estimate)
    assert ends(found) == pytest.approx(tuple(1 - end for end in reversed(ends(before))), abs=0.01)
