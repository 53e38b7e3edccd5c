"""What was known of a picture before its label map was refined: the same that refine gives without a refiner."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from builders.single_refinement import refine_objects, refine_picture
from maskmill.stages.manifest.soft_maps import SoftMaps, labels_before_refining
from maskmill.stages.maps.background_rules import RowThresholds, parse_background
from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine.refinement import Refinement

SIZE = (3, 4)
NO_PICTURE = np.zeros((*SIZE, 3), np.uint8)
values = st.sampled_from([0, 0.25, 0.5, 0.75, 1])


maps = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        arrays(np.float32, (count, *SIZE), elements=values),
        arrays(np.float64, count, elements=values),
        st.lists(st.integers(1, 5), min_size=count, max_size=count),
    )
)


@given(maps, st.sampled_from(["rows", "constant:0.3", "power:2", "two:0.2,0.6"]))
def test_of_classes(soft: tuple[np.ndarray, np.ndarray, list[int]], rule: str) -> None:
    background = parse_background(rule)
    wanted = refine_picture(NO_PICTURE, *soft, Refinement(background=background))
    found = labels_before_refining(SoftMaps(*soft), background, [])
    assert found is not None
    np.testing.assert_array_equal(found, wanted.label_HW)


@given(maps, st.integers(1, 3))
def test_of_an_object_without_class(soft: tuple[np.ndarray, np.ndarray, list[int]], label: int) -> None:
    maps_KHW, thresholds_K, classes = soft
    known = KnownClasses(num_classes=3, image_labels=[label])
    wanted = refine_objects(NO_PICTURE, maps_KHW, thresholds_K, known, Refinement(background=RowThresholds()))
    found = labels_before_refining(SoftMaps(maps_KHW, thresholds_K, [None] * len(classes)), RowThresholds(), [label])
    assert found is not None
    np.testing.assert_array_equal(found, wanted.label_HW)


@pytest.mark.parametrize("found", [[], [1, 2]])
def test_which_part_of_an_object_was_of_which_class_is_not_known(found: list[int]) -> None:
    soft = SoftMaps(np.ones((1, *SIZE), np.float32), np.array([0.5]), [None])
    assert labels_before_refining(soft, RowThresholds(), found) is None


def test_the_backgrounds_own_map() -> None:
    maps_KHW = np.zeros((2, *SIZE), np.float32)
    maps_KHW[0, :, 0], maps_KHW[1] = 0.9, 0.5
    found = labels_before_refining(SoftMaps(maps_KHW, np.zeros(2), [0, 7]), parse_background("map"), [7])
    assert found is not None
    assert found.tolist() == [[0, 7, 7, 7]] * 3


def test_a_class_has_the_highest_of_its_own_maps_and_else_the_objects() -> None:
    maps_KHW = np.stack([np.full(SIZE, value, np.float32) for value in (0.2, 0.6, 0.4)])
    of_classes = SoftMaps(maps_KHW, np.zeros(3), [3, 3, 5])
    highest, other = of_classes.class_map(3), of_classes.class_map(5)
    assert highest is not None
    assert other is not None
    assert (highest.max(), other.max()) == (np.float32(0.6), np.float32(0.4))
    assert of_classes.class_map(4) is None
    of_object = SoftMaps(maps_KHW[:1], np.zeros(1), [None]).class_map(4)
    assert of_object is not None
    assert of_object.max() == np.float32(0.2)
