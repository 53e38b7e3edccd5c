import numpy as np
import pytest

from maskmill.stages.evaluate.coverage import counts_without_labels, coverage
from maskmill.stages.scores.iou import pixel_counts


def halves(left: int, right: int) -> np.ndarray:
    return np.repeat(np.array([[left, right]], np.uint8), 4, axis=0)


def test_dropped_rows_are_all_background_and_kept_rows_stand_beside():
    found = coverage(
        [pixel_counts(halves(0, 1), halves(0, 1))],
        [counts_without_labels(halves(0, 1)), counts_without_labels(halves(2, 2))],
    )
    assert (found.num_rows, found.num_kept) == (3, 1)
    assert found.over_kept.miou == 1
    by_label = {row.label: row.iou for row in found.over_all.classes}
    assert by_label == {0: 8 / 20, 1: 4 / 8, 2: 0}
    assert found.over_all.miou == pytest.approx((8 / 20 + 1 / 2) / 3)


def test_void_truth_of_a_dropped_row_is_no_error():
    assert {row.label: row.iou for row in coverage([], [counts_without_labels(halves(0, 255))]).over_all.classes} == {
        0: 1
    }


def test_nothing_kept_has_no_score_of_its_own():
    found = coverage([], [counts_without_labels(halves(1, 1))])
    assert found.over_kept.miou is None
    assert found.over_all.miou == 0


def test_with_nothing_dropped_both_are_the_same():
    found = coverage([pixel_counts(halves(1, 2), halves(1, 1))], [])
    assert found.over_all == found.over_kept
