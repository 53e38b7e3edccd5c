import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from maskmill.stages.evaluate.boundary import (
    boundary_scores,
    class_boundary_f,
    mean_boundary_f,
    stack_boundaries,
)

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        *[arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 2, 255])) for _ in range(2)]
    )
)


def slow_boundary(mask):
    found = []
    for row, column in np.argwhere(mask).tolist():
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and not mask[r, c]:
                found.append((row, column))
                break
    return found


def slow_f(truth, predicted, label, tolerance):
    """None where there is nothing to judge. Every point against every other."""
    is_true, is_predicted = (truth == label).any(), ((predicted == label) & (truth != 255)).any()
    if not is_true and not is_predicted:
        return None
    if is_true != is_predicted:
        return 0
    reach = tolerance * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)
    true, guess = slow_boundary(truth == label), slow_boundary(predicted == label)
    hits = [any(math.dist(p, q) <= reach for q in true) for p in guess]
    judged = [hit for p, hit in zip(guess, hits, strict=True) if hit or truth[p] != 255]
    if not true and not judged:
        return 1
    if not true or not judged:
        return 0
    precision = sum(judged) / len(judged)
    recall = sum(any(math.dist(p, q) <= reach for q in guess) for p in true) / len(true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@given(PAIRS, st.sampled_from([0.0, 0.1, 0.2, 0.5]))
def test_f_is_that_of_every_point_against_every_other(pair, tolerance):
    truth, predicted = pair
    found = boundary_scores(truth, predicted, tolerance)
    expected = {label: slow_f(truth, predicted, label, tolerance) for label in (1, 2)}
    kept = {label: f for label, f in expected.items() if f is not None}
    assert dict(zip(found.classes.tolist(), found.f.tolist(), strict=True)) == pytest.approx(kept)


def disc(size: int, row: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return ((rows - row) ** 2 + (columns - size / 2) ** 2 <= radius**2).astype(np.uint8)


def test_the_tolerance_is_2_percent_of_the_diagonal():
    """A square moved sideways, in a picture whose diagonal is 500: up to 10 pixels it is all found."""
    truth = np.zeros((300, 400), np.uint8)
    truth[100:200, 100:200] = 1
    f = [float(boundary_scores(truth, np.roll(truth, shift, axis=1)).f[0]) for shift in (0, 10, 11)]
    assert f[:2] == [1, 1]
    assert f[2] < 1


def test_a_larger_disc_is_as_far_off_as_a_smaller_one_is_not_found():
    truth = disc(100, 50, 30)
    f = [float(boundary_scores(truth, disc(100, 50, 30 + more)).f[0]) for more in (1, 2, 6, -6)]
    assert f[:2] == [1, 1]
    assert f[2:] == [0, 0]


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ("whole", "whole", 1),  # no boundary in both
        ("whole", "part", 0),
        ("part", "whole", 0),
        ("part", "none", 0),
        ("none", "part", 0),
        ("whole", "none", 0),
        ("none", "none", None),
    ],
)
def test_classes_without_a_boundary(true, predicted, expected):
    shapes = {"whole": np.ones((20, 20), np.uint8), "part": disc(20, 10, 5), "none": np.zeros((20, 20), np.uint8)}
    found = boundary_scores(shapes[true], shapes[predicted])
    assert found.f.tolist() == ([] if expected is None else [expected])


def test_void_around_an_object_neither_betrays_it_nor_counts_against_it():
    """As in VOC: the true outline runs somewhere inside a band of 255."""
    band = disc(100, 50, 32)
    truth = np.where(disc(100, 50, 28) == 1, 1, np.where(band == 1, 255, 0)).astype(np.uint8)
    assert boundary_scores(truth, disc(100, 50, 30)).f.tolist() == [1]
    assert boundary_scores(truth, np.ones_like(truth)).f.tolist() == [0]


def test_images_of_a_class_are_averaged_before_classes():
    truth, empty = disc(40, 20, 8), np.zeros((40, 40), np.uint8)
    images = [
        boundary_scores(truth, truth),
        boundary_scores(truth, empty),
        boundary_scores(2 * truth, 2 * truth),
        boundary_scores(empty, empty),
    ]
    classes, sums = stack_boundaries(images)
    assert classes.tolist() == [1, 2]
    total = sums.sum(axis=0)
    assert class_boundary_f(total).tolist() == [0.5, 1]
    assert mean_boundary_f(total) == 0.75
    assert mean_boundary_f(sums)[:3].tolist() == [1, 0, 1]
    assert math.isnan(mean_boundary_f(sums)[3])


def test_no_images_have_no_score():
    classes, sums = stack_boundaries([])
    assert len(classes) == 0
    assert math.isnan(mean_boundary_f(sums.sum(axis=0)))
