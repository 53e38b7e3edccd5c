import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from maskmill.stages.scores.floors import (
    GRID,
    WHOLE,
    Ellipse,
    cell_counts,
    fit_ellipses,
    labels_to_paint,
    paint_ellipse,
)

CENTRES = [0.3, 0.4, 0.5, 0.6, 0.7]
RADII = [0.1 + 0.05 * step for step in range(14)]


def ids_of(num: int) -> list[str]:
    return [f"{at:04d}.jpg" for at in range(num)]


def half_of(image_id: str) -> int:
    return hashlib.sha256(image_id.encode()).digest()[0] % 2


def fitted(labels: list[set[int]], truth: list[np.ndarray]) -> list[Ellipse]:
    return fit_ellipses(ids_of(len(truth)), labels, np.stack([cell_counts(one) for one in truth]))


def close(first: Ellipse, row: float, column: float, row_radius: float, column_radius: float) -> bool:
    own = (first.row, first.column, first.row_radius, first.column_radius)
    return own == pytest.approx((row, column, row_radius, column_radius))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 254))
@example(600, 800, 1)
def test_the_whole_ellipse_is_every_pixel(height, width, label):
    assert (paint_ellipse((height, width), label) == label).all()


def test_a_pixel_is_painted_if_its_centre_is_inside():
    found = paint_ellipse((4, 8), 3, Ellipse(0.5, 0.5, 0.5, 0.25))
    for row, column in itertools.product(range(4), range(8)):
        inside = ((row + 0.5) / 4 - 0.5) ** 2 / 0.25 + ((column + 0.5) / 8 - 0.5) ** 2 / 0.0625 <= 1
        assert found[row, column] == (3 if inside else 0)


def test_of_several_labels_the_commonest_is_painted():
    assert labels_to_paint([{1}, {2, 1}, {2, 3}, {2}, {4, 5}, set()]) == [1, 2, 2, 2, 4, 0]


@given(st.integers(1, 150), st.integers(1, 150))
def test_cells_hold_every_pixel_once(height, width):
    truth = np.random.default_rng(height * 1000 + width).choice(np.array([0, 1, 9, 255], np.uint8), (height, width))
    foreground, judged = cell_counts(truth)
    assert foreground.sum() == ((truth == 1) | (truth == 9)).sum()
    assert judged.sum() == (truth != 255).sum()
    row, column = height // 2, width // 3
    alone = np.full_like(truth, 255)
    alone[row, column] = 1
    at = np.argwhere(cell_counts(alone)[0])
    assert at.tolist() == [[(2 * row + 1) * GRID // (2 * height), (2 * column + 1) * GRID // (2 * width)]]


def test_the_ellipse_of_a_class_is_fitted_on_the_others():
    """Three classes that each are one ellipse: every class gets the one of the two others, never its own."""
    shapes = {1: Ellipse(0.3, 0.3, 0.2, 0.2), 2: Ellipse(0.7, 0.6, 0.25, 0.35), 3: Ellipse(0.7, 0.6, 0.25, 0.35)}
    labels = [{1}, {1}, {2}, {3}]
    truth = [paint_ellipse((64, 64), min(own), shapes[min(own)]) for own in labels]
    found = fitted(labels, truth)
    assert close(found[0], 0.7, 0.6, 0.25, 0.35)
    assert found[0] == found[1]
    assert not close(found[2], 0.7, 0.6, 0.25, 0.35)


def test_nothing_of_the_judged_class_is_used():
    """Whatever the truth of images that hold class 3, its ellipse stays; also where they are painted as class 2."""
    rng = np.random.default_rng(0)
    labels = [{3}, {2, 3}, {2}, {2}, {2}, {1}, {1, 3}]
    assert labels_to_paint(labels) == [3, 2, 2, 2, 2, 1, 3]
    sizes = [(400, 500) if 3 in own else (40, 50) for own in labels]  # heavy, wherever they would be used
    truth = [
        paint_ellipse(size, min(own), Ellipse(*rng.uniform(0.3, 0.6, 4)))
        for own, size in zip(labels, sizes, strict=True)
    ]
    truth[5][:] = 0  # so that class 2 alone decides
    changed = [np.roll(one, 150, axis=1) if 3 in own else one for own, one in zip(labels, truth, strict=True)]
    before, after = fitted(labels, truth), fitted(labels, changed)
    assert [before[0], before[6]] == [after[0], after[6]]
    assert before[5] != after[5]  # class 1 is fitted on all but the last two


def test_it_is_the_best_of_every_ellipse_tried():
    """Each of them painted and judged as tables do: pixels summed per class, then the mean over classes."""
    rng = np.random.default_rng(4)  # on these the mean of Dice has another best ellipse than the mean of IoU
    labels = [{1}, {2}, {2}, {2}, {3}, {3}, {3}]
    shapes = [Ellipse(*rng.uniform(0.2, 0.6, 4)) for _ in labels]
    truth = []
    for own, shape in zip(labels, shapes, strict=True):
        one = paint_ellipse((GRID, GRID), min(own), shape)
        one[rng.random(one.shape) < 0.1] = 0
        one[rng.random(one.shape) < 0.05] = 255
        truth.append(one)
    by_class = [np.concatenate(truth[1:4]), np.concatenate(truth[4:])]  # what class 1 is fitted on

    def miou(ellipse: Ellipse) -> float:
        found = paint_ellipse((GRID, GRID), 1, ellipse) > 0
        total = 0.0
        for many in by_class:
            inside, judged = (many > 0) & (many < 255), many < 255
            guess = np.concatenate([found] * (len(many) // GRID)) & judged
            total += (guess & inside).sum() / (guess | inside).sum()
        return total / len(by_class)

    every = itertools.product(CENTRES, CENTRES, RADII, RADII)
    assert miou(fitted(labels, truth)[0]) == max(miou(Ellipse(*four)) for four in every)


def test_classes_weigh_alike_however_many_images_they_have():
    """Nine images of one class and three of others: of all pixels the small ellipse is best, of classes the large."""
    small, large = Ellipse(0.5, 0.3, 0.2, 0.2), Ellipse(0.5, 0.5, 0.45, 0.45)
    labels = [{1}] * 9 + [{2}, {3}, {4}]
    truth = [paint_ellipse((64, 64), min(own), small if own == {1} else large) for own in labels]
    assert close(fitted(labels, truth)[-1], 0.5, 0.5, 0.45, 0.45)


def test_a_single_class_is_fitted_on_the_other_half():
    ids = ids_of(8)
    shapes = [Ellipse(0.3, 0.3, 0.2, 0.2), Ellipse(0.7, 0.6, 0.25, 0.35)]
    truth = [paint_ellipse((64, 64), 5, shapes[half_of(image_id)]) for image_id in ids]
    assert {half_of(image_id) for image_id in ids} == {0, 1}
    for image_id, found in zip(ids, fitted([{5}] * 8, truth), strict=True):
        other = shapes[1 - half_of(image_id)]
        assert close(found, other.row, other.column, other.row_radius, other.column_radius)


def test_with_nothing_to_fit_on_it_is_the_whole_picture():
    truth = paint_ellipse((20, 20), 1, Ellipse(0.5, 0.5, 0.2, 0.2))
    assert fitted([{1}], [truth]) == [WHOLE]
    assert fitted([{1}, {2}], [truth, np.zeros((20, 20), np.uint8)])[0] == WHOLE
    assert fitted([set(), set()], [truth, truth]) == [WHOLE, WHOLE]
    assert fit_ellipses([], [], np.zeros((0, 2, GRID, GRID), np.float32)) == []


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(3)
    labels = [{int(label)} for label in rng.integers(1, 4, 20)]
    truth = [paint_ellipse((30, 45), min(own), Ellipse(*rng.uniform(0.2, 0.6, 4))) for own in labels]
    cells, ids = np.stack([cell_counts(one) for one in truth]), ids_of(20)
    order = rng.permutation(20)
    found = fit_ellipses(ids, labels, cells)
    again = fit_ellipses([ids[at] for at in order], [labels[at] for at in order], cells[order])
    assert again == [found[at] for at in order]
