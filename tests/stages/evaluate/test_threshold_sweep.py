import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from maskmill.stages.evaluate.threshold_sweep import best_class_thresholds, best_threshold, sweep_counts
from maskmill.stages.scores.iou import as_foreground, iou_scores, pixel_counts, sum_counts

STEPS = st.integers(0, 6).map(lambda step: step / 5)  # few values, so that maps tie and meet thresholds; one is above 1
THRESHOLDS = np.array([0.0, 0.2, 0.35, 0.6, 1.0], np.float32)


@st.composite
def images(draw):
    labels = draw(st.lists(st.sampled_from([1, 2, 254]), max_size=4))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    soft = draw(arrays.arrays(np.float32, (len(labels), height, width), elements=STEPS.map(np.float32)))
    truth = draw(arrays.arrays(np.uint8, (height, width), elements=st.sampled_from([0, 1, 2, 3, 255])))
    return truth, soft, labels


def slow_labels(soft, labels, threshold):
    found = np.zeros(soft.shape[1:], np.uint8)
    for place in np.ndindex(*soft.shape[1:]):
        values = [float(one[place]) for one in soft]
        if values and max(values) > threshold:
            best = {label for label, value in zip(labels, values, strict=True) if value == max(values)}
            found[place] = best.pop() if len(best) == 1 else 255
    return found


def occurring(classes, pixels):
    return {label: row for label, row in zip(classes.tolist(), pixels.tolist(), strict=True) if any(row)}


@given(images())
def test_each_threshold_counts_as_its_label_map_does(image):
    truth, soft, labels = image
    found = sweep_counts(truth, soft, labels, THRESHOLDS)
    for at, threshold in enumerate(THRESHOLDS):
        alone = pixel_counts(truth, slow_labels(soft, labels, threshold))
        assert occurring(found.classes, found.pixels[at]) == occurring(alone.classes, alone.pixels)


@given(st.lists(images(), min_size=1, max_size=3))
def test_the_best_threshold_is_that_of_the_sum_and_says_what_chose_it(several):
    total = sum_counts([sweep_counts(truth, soft, labels, THRESHOLDS) for truth, soft, labels in several])
    miou: list[float] = []
    for threshold in THRESHOLDS:
        each = [pixel_counts(truth, slow_labels(soft, labels, threshold)) for truth, soft, labels in several]
        miou.append(iou_scores(sum_counts(each)).miou or 0)
    best = best_threshold(THRESHOLDS, total)
    if best is None:
        assert all((truth == 255).all() for truth, _, _ in several)
        return
    assert best.miou == pytest.approx(max(miou))
    assert miou[THRESHOLDS.tolist().index(best.threshold)] == pytest.approx(best.miou)
    assert best.chosen_on == "ground truth"


@given(st.lists(images(), min_size=1, max_size=3))
def test_the_best_threshold_of_a_class_has_its_highest_iou(several):
    total = sum_counts([sweep_counts(truth, soft, labels, THRESHOLDS) for truth, soft, labels in several])
    scores = []
    for threshold in THRESHOLDS:
        each = [pixel_counts(truth, slow_labels(soft, labels, threshold)) for truth, soft, labels in several]
        scores.append({row.label: row.iou for row in iou_scores(sum_counts(each)).classes})
    true = {int(label) for truth, _, _ in several for label in np.unique(truth)} - {0, 255}
    best = {row.label: row for row in best_class_thresholds(THRESHOLDS, total)}
    assert best.keys() <= true
    for label, row in best.items():
        ious = [score.get(label) or 0 for score in scores]
        assert row.iou == pytest.approx(max(ious))
        assert THRESHOLDS.tolist().index(row.threshold) == int(np.argmax(np.round(ious, 12)))
    for label in true - best.keys():
        assert all(not score.get(label) for score in scores), "no map has a pixel of it"


def test_a_pixel_at_the_threshold_is_background():
    truth = np.ones((1, 1), np.uint8)
    soft = np.full((1, 1, 1), 0.4, np.float32)
    counts = sweep_counts(truth, soft, [1], np.array([0.3, 0.4, 0.5], np.float32))
    assert counts.pixels[:, counts.classes.tolist().index(1), 0].tolist() == [1, 0, 0]


def test_without_classes_maps_do_not_compete():
    truth = np.array([[2, 0, 255]], np.uint8)
    soft = np.array([[[0.9, 0.1, 0.9]], [[0.9, 0.2, 0.1]]], np.float32)
    counts = sweep_counts(as_foreground(truth), soft, [1, 1], np.array([0.5], np.float32))
    best = best_threshold(np.array([0.5], np.float32), counts)
    assert best
    assert best.miou == 1


def test_among_equal_thresholds_the_lowest_is_taken():
    truth = np.array([[0, 1]], np.uint8)
    soft = np.array([[[0.0, 1.0]]], np.float32)
    best = best_threshold(THRESHOLDS, sweep_counts(truth, soft, [1], THRESHOLDS))
    assert best
    assert best.threshold == 0


def test_maps_that_are_not_finite_are_never_counted():
    with pytest.raises(AssertionError, match="finite"):
        sweep_counts(np.zeros((1, 1), np.uint8), np.full((1, 1, 1), np.nan, np.float32), [1], THRESHOLDS)
