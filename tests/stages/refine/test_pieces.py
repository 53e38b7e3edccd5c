"""Small pieces and holes against a flood fill written from the definition, and cases by hand."""

from collections import Counter

import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from builders.single_refinement import refine_objects, refine_picture
from maskmill.stages.maps.background_rules import RowThresholds
from maskmill.stages.maps.object_classes import KnownClasses
from maskmill.stages.refine.pieces import fill_small_holes, remove_small_pieces, tidy_labels
from maskmill.stages.refine.refinement import Refinement

FOUR = ((0, 1), (1, 0), (0, -1), (-1, 0))
EIGHT = (*FOUR, (1, 1), (1, -1), (-1, 1), (-1, -1))
LABELS = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.sampled_from([0, 0, 3, 3, 7, 255]),
)

Pixel = tuple[int, int]


def around(pixel: Pixel, size: tuple[int, ...], steps: tuple[Pixel, ...]) -> list[Pixel]:
    places = [(pixel[0] + row, pixel[1] + column) for row, column in steps]
    return [(row, column) for row, column in places if 0 <= row < size[0] and 0 <= column < size[1]]


def flood(label_HW: np.ndarray, steps: tuple[Pixel, ...]) -> list[set[Pixel]]:
    pieces: list[set[Pixel]] = []
    left = set(np.ndindex(*label_HW.shape))
    while left:
        piece, open_pixels = set(), [min(left)]
        while open_pixels:
            pixel = open_pixels.pop()
            if pixel in left:
                left.discard(pixel)
                piece.add(pixel)
                open_pixels += [p for p in around(pixel, label_HW.shape, steps) if label_HW[p] == label_HW[pixel]]
        pieces.append(piece)
    return pieces


def slow_removal(label_HW: np.ndarray, min_piece: int) -> np.ndarray:
    removed = label_HW.copy()
    pieces = flood(label_HW, EIGHT)
    small = [piece for piece in pieces if label_HW[min(piece)] not in (0, 255) and len(piece) < min_piece]
    in_small = set().union(*small)
    for piece in small:
        votes = Counter(
            int(label_HW[other])
            for pixel in piece
            for other in around(pixel, label_HW.shape, EIGHT)
            if other not in in_small
        )
        winner = max(votes, key=lambda label: (votes[label], -label)) if votes else 0
        for pixel in piece:
            removed[pixel] = winner
    return removed


def slow_filling(label_HW: np.ndarray, fill_holes: int) -> np.ndarray:
    filled, (height, width) = label_HW.copy(), label_HW.shape
    for piece in flood(label_HW, FOUR):
        is_inside = all(0 < row < height - 1 and 0 < column < width - 1 for row, column in piece)
        ring = {int(label_HW[p]) for pixel in piece for p in around(pixel, label_HW.shape, FOUR) if p not in piece}
        if label_HW[min(piece)] == 0 and is_inside and len(piece) <= fill_holes and len(ring) == 1 and ring != {255}:
            for pixel in piece:
                filled[pixel] = min(ring)
    return filled


@settings(max_examples=200)
@given(LABELS, st.integers(0, 9))
def test_pieces_and_holes_are_those_of_a_flood_fill(label_HW: np.ndarray, size_px: int) -> None:
    before = label_HW.copy()
    np.testing.assert_array_equal(remove_small_pieces(label_HW, size_px), slow_removal(label_HW, size_px))
    np.testing.assert_array_equal(fill_small_holes(label_HW, size_px), slow_filling(label_HW, size_px))
    tidied = tidy_labels(label_HW, size_px, size_px)
    np.testing.assert_array_equal(tidied, slow_filling(slow_removal(label_HW, size_px), size_px))
    assert (tidied[label_HW == 255] == 255).all()
    assert tidied.dtype == np.uint8
    np.testing.assert_array_equal(label_HW, before)


def test_nothing_asked_is_nothing_done() -> None:
    label_HW = np.random.default_rng(0).choice(np.array([0, 3, 255], np.uint8), (9, 9))
    for min_piece in (0, 1):
        np.testing.assert_array_equal(tidy_labels(label_HW, min_piece, 0), label_HW)


def test_a_speck_takes_the_label_around_it_and_a_hole_its_class() -> None:
    label_HW = np.zeros((9, 12), np.uint8)
    label_HW[1:8, 1:8] = 3
    label_HW[3, 3] = 7  # inside a class
    label_HW[5, 5] = 0  # a hole
    label_HW[4, 10] = 7  # in the background
    tidied = tidy_labels(label_HW, 2, 1)
    expected = np.zeros_like(label_HW)
    expected[1:8, 1:8] = 3
    np.testing.assert_array_equal(tidied, expected)


def test_a_corner_joins_pieces_and_does_not_open_a_hole() -> None:
    diagonal = np.zeros((6, 6), np.uint8)
    diagonal[[1, 2, 3], [1, 2, 3]] = 5
    assert remove_small_pieces(diagonal, 3).sum() == 15
    assert remove_small_pieces(diagonal, 4).sum() == 0
    ring = np.array([[0, 5, 0], [5, 0, 5], [0, 5, 0]], np.uint8)
    assert fill_small_holes(ring, 1)[1, 1] == 5


def test_holes_at_the_edge_between_classes_or_beside_255_stay() -> None:
    for label_HW in ([[0, 5], [5, 5]], [[5, 5, 5], [5, 0, 6], [5, 5, 5]], [[5, 5, 5], [5, 0, 255], [5, 5, 5]]):
        assert (fill_small_holes(np.array(label_HW, np.uint8), 9) == np.array(label_HW)).all()


MAPS_KHW = np.zeros((1, 8, 9), np.float32)
MAPS_KHW[0, 1:6, 1:6] = 0.8
MAPS_KHW[0, 3, 3] = 0.2
MAPS_KHW[0, 7, 8] = 0.9


def test_areas_and_scores_are_those_of_the_tidied_map() -> None:
    refinement = Refinement(background=RowThresholds(), min_piece=4, fill_holes=4)
    black = np.zeros((8, 9, 3), np.uint8)
    of_class = refine_picture(black, MAPS_KHW, np.full(1, 0.5), [4], refinement)
    of_object = refine_objects(
        black, MAPS_KHW, np.full(1, 0.5), KnownClasses(num_classes=9, image_labels=[4]), refinement
    )
    for refined in (of_class, of_object):
        (measured,) = refined.classes
        assert (measured.index, measured.area_px) == (4, 25)
        assert measured.score is not None
        assert abs(measured.score - (24 * 0.8 + 0.2) / 25) < 1e-6
        assert refined.label_HW[7, 8] == 0


def test_a_class_whose_pieces_are_all_small_is_gone() -> None:
    refinement = Refinement(background=RowThresholds(), min_piece=60)
    refined = refine_picture(np.zeros((8, 9, 3), np.uint8), MAPS_KHW, np.full(1, 0.5), [4], refinement)
    assert (refined.classes[0].area_px, refined.classes[0].score, refined.note) == (0, None, "no_foreground")
