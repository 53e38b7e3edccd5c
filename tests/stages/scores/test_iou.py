import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from maskmill.stages.scores.iou import (
    as_foreground,
    class_iou,
    iou_scores,
    mean_iou,
    mean_iou_truth,
    pixel_counts,
    stack_counts,
    sum_counts,
)

VALUES = st.sampled_from([0, 1, 2, 7, 254, 255])
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.uint8, shape, elements=VALUES), arrays.arrays(np.uint8, shape, elements=VALUES)
    )
)


def slow_counts(truth, predicted, undecided):
    """Pixel by pixel, class → [in both, predicted, true]."""
    found: dict[int, list[int]] = {}
    for true, guess in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if true == 255 or (guess == 255 and undecided == "excluded"):
            continue
        found.setdefault(true, [0, 0, 0])[2] += 1
        if guess != 255:
            found.setdefault(guess, [0, 0, 0])[1] += 1
        if guess == true:
            found[true][0] += 1
    return found


def as_dict(counts):
    assert (np.diff(counts.classes.astype(int)) > 0).all()
    return dict(zip(counts.classes.tolist(), counts.pixels.tolist(), strict=True))


def slow_miou(images, undecided, with_background, of_truth=False):
    """Sums first, then the mean over every class that is in a truth or in a prediction, or in a truth."""
    total: dict[int, list[int]] = {}
    for truth, predicted in images:
        for label, row in slow_counts(truth, predicted, undecided).items():
            total[label] = [a + b for a, b in zip(total.get(label, [0, 0, 0]), row, strict=True)]
    used = [row for label, row in total.items() if (label or with_background) and (row[2] or not of_truth)]
    return sum(both / (guessed + true - both) for both, guessed, true in used) / len(used) if used else None


@given(PAIRS, st.sampled_from(["error", "excluded"]))
def test_counts_are_those_of_every_pixel_by_itself(pair, undecided):
    truth, predicted = pair
    assert as_dict(pixel_counts(truth, predicted, undecided)) == slow_counts(truth, predicted, undecided)


@given(st.lists(PAIRS, max_size=4), st.sampled_from(["error", "excluded"]), st.booleans())
def test_miou_is_of_sums_and_of_every_class_that_occurs(images, undecided, with_background):
    counts = [pixel_counts(truth, predicted, undecided) for truth, predicted in images]
    total = sum_counts(counts)
    assert as_dict(total) == as_dict(sum_counts([sum_counts(counts[:2]), sum_counts(counts[2:])]))
    found = iou_scores(total)
    expected = slow_miou(images, undecided, with_background)
    assert (found.miou if with_background else found.miou_foreground) == pytest.approx(expected)
    assert found.miou_truth_classes == pytest.approx(slow_miou(images, undecided, True, of_truth=True))
    together = stack_counts(counts)
    assert np.array_equal(together.pixels.sum(axis=0), total.pixels)
    assert np.array_equal(together.classes, total.classes)


def test_one_case_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
    predicted = np.array([[0, 1, 1, 1], [3, 1, 255, 0]], np.uint8)
    found = iou_scores(pixel_counts(truth, predicted))
    by_label = {row.label: (row.iou, row.precision, row.recall) for row in found.classes}
    assert by_label == {
        0: (1 / 4, 1 / 2, 1 / 3),
        1: (2 / 4, 2 / 3, 2 / 3),
        2: (0, None, 0),
        3: (0, 0, None),  # predicted where there is none
    }
    assert found.miou == pytest.approx((1 / 4 + 1 / 2) / 4)
    assert found.miou_foreground == pytest.approx((1 / 2) / 3)
    leaving_out = {row.label: row.recall for row in iou_scores(pixel_counts(truth, predicted, "excluded")).classes}
    assert leaving_out == {0: 1 / 3, 1: 1, 2: 0, 3: None}


def test_a_class_without_truth_counts_in_one_mean_and_not_in_the_other():
    truth, predicted = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 2, 1, 1]], np.uint8)
    found = iou_scores(pixel_counts(truth, predicted))
    assert found.miou == pytest.approx((1 / 2 + 1 + 0) / 3)  # as in WeakTr
    assert found.miou_truth_classes == pytest.approx((1 / 2 + 1) / 2)  # as in ToCo, AFA and CLIP-ES
    by_image = stack_counts([pixel_counts(truth, predicted), pixel_counts(predicted, truth)])
    assert mean_iou_truth(by_image).tolist() == pytest.approx([3 / 4, 1 / 2])


def test_a_perfect_prediction_is_1_and_void_truth_is_nothing():
    truth = np.array([[0, 5], [255, 5]], np.uint8)
    assert iou_scores(pixel_counts(truth, np.where(truth == 255, 9, truth).astype(np.uint8))).miou == 1
    nothing = iou_scores(pixel_counts(np.full((3, 3), 255, np.uint8), np.ones((3, 3), np.uint8)))
    assert (nothing.miou, nothing.miou_foreground, nothing.classes) == (None, None, ())
    assert iou_scores(sum_counts([])).miou is iou_scores(sum_counts([])).miou_truth_classes is None


def test_the_mean_is_of_sums_and_not_of_images():
    large, small = np.ones((10, 10), np.uint8), np.ones((1, 1), np.uint8)
    counts = [pixel_counts(large, large), pixel_counts(small, np.zeros_like(small))]
    assert iou_scores(sum_counts(counts)).miou_foreground == pytest.approx(100 / 101)
    per_image = mean_iou(stack_counts(counts), with_background=False)
    assert per_image.tolist() == [1, 0]


@given(PAIRS)
def test_without_classes_a_wrong_class_is_no_error(pair):
    truth, predicted = pair
    foreground = [(truth > 0) & (truth < 255), (predicted > 0) & (predicted < 255)]
    judged = truth != 255
    both, either = ((foreground[0] & foreground[1])[judged].sum(), (foreground[0] | foreground[1])[judged].sum())
    found = iou_scores(pixel_counts(as_foreground(truth), as_foreground(predicted))).miou_foreground
    assert found == (pytest.approx(both / either) if either else None)


def test_classes_without_pixels_in_one_image_are_nan_there():
    counts = stack_counts([pixel_counts(np.full((2, 2), k, np.uint8), np.full((2, 2), k, np.uint8)) for k in (1, 2)])
    iou = class_iou(counts.pixels)
    assert iou[0, 0] == iou[1, 1] == 1
    assert math.isnan(iou[0, 1])
    assert math.isnan(iou[1, 0])
    assert mean_iou(counts, with_background=True).tolist() == [1, 1]


def test_sizes_that_differ_are_not_broadcast():
    with pytest.raises(Exception, match=r"judged by|annotation"):
        pixel_counts(np.ones((4, 4), np.uint8), np.ones((1, 4), np.uint8))
