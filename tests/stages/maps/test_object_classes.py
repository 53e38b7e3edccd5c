"""Objects found without a class: each gets the class that the picture's labels or maps say, or 255."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from maskmill.stages.maps.object_classes import KnownClasses, object_labels

masks = arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8)))
MASK = np.array(
    [
        [1, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
    ],
    bool,
)


def known(
    num_classes: int, image_labels: Sequence[int], maps_KHW: np.ndarray | None = None, map_classes: Sequence[int] = ()
) -> KnownClasses:
    return KnownClasses(num_classes=num_classes, image_labels=image_labels, maps_KHW=maps_KHW, map_classes=map_classes)


@given(masks, st.integers(1, 254))
def test_the_only_label_of_a_picture_is_its_objects_class(mask_HW: np.ndarray, label: int) -> None:
    maps_KHW = np.ones((2, *mask_HW.shape), np.float32)
    assert np.array_equal(object_labels(mask_HW, known(254, [label], maps_KHW, [3, 4])), mask_HW * np.uint8(label))


@given(masks)
def test_an_object_is_class_1_where_the_dataset_names_no_classes(mask_HW: np.ndarray) -> None:
    assert np.array_equal(object_labels(mask_HW, known(0, [])), mask_HW.astype(np.uint8))


@given(masks, st.sampled_from([(), (3, 7)]))
def test_without_maps_a_class_is_not_guessed(mask_HW: np.ndarray, image_labels: tuple[int, ...]) -> None:
    expected = mask_HW * np.uint8(255)
    assert np.array_equal(object_labels(mask_HW, known(9, image_labels)), expected)
    none = np.zeros((0, *mask_HW.shape), np.float32)
    assert np.array_equal(object_labels(mask_HW, known(9, image_labels, none)), expected)


def test_each_segment_has_the_class_that_is_highest_in_it_on_average() -> None:
    maps_KHW = np.zeros((2, 4, 5), np.float32)
    maps_KHW[0] = 0.5
    maps_KHW[1, 1, 2] = 0.9  # one pixel of three, which touches the others by a corner: 0.3 on average
    maps_KHW[1, 0, 4] = 0.6
    maps_KHW[1, 2:, 4] = [0.3, 0.6]
    maps_KHW[1, 3, 1] = 1.0  # not on an object
    expected = [[3, 3, 0, 0, 7], [0, 0, 3, 0, 0], [0, 0, 0, 0, 3], [3, 0, 0, 0, 3]]
    assert object_labels(MASK, known(9, [3, 7], maps_KHW, [3, 7])).tolist() == expected
    assert object_labels(MASK, known(9, [3, 7], maps_KHW[::-1].copy(), [7, 3])).tolist() == expected


def test_a_segment_in_which_two_classes_are_equal_is_ignored() -> None:
    maps_KHW = np.full((2, 4, 5), 0.5, np.float32)
    maps_KHW[1, 3, 0] = 0.75
    expected = np.where(MASK, 255, 0)
    expected[3, 0] = 7
    assert np.array_equal(object_labels(MASK, known(9, [3, 7], maps_KHW, [3, 7])), expected)


@given(masks)
def test_one_map_names_every_segment(mask_HW: np.ndarray) -> None:
    maps_KHW = np.zeros((1, *mask_HW.shape), np.float32)
    assert np.array_equal(object_labels(mask_HW, known(9, [5, 6], maps_KHW, [5])), mask_HW * np.uint8(5))
