"""Resampling against torch over whole views, and against smooth functions of the picture over boxes; merging."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, strategies as st
from torch.nn.functional import interpolate

from maskmill.stages.choices import FitOrCrop
from maskmill.stages.maps.upsampling import upsample_maps
from maskmill.stages.mask.merging import (
    Lattice,
    ScoreKind,
    merge_maps,
    mirror_patches,
    resample_maps,
    resample_to_lattices,
    valid_patch_masks,
)
from maskmill.stages.vision.fitting import fit_picture

SIDES = st.integers(1, 12)
PATCHES = st.sampled_from([(8, 8), (4, 6), (14, 16)])
FITS: st.SearchStrategy[FitOrCrop] = st.sampled_from(["pad", "squash"])
Size = tuple[int, int]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def whole(grid: Size, patch: Size) -> Lattice:
    return Lattice(grid, patch, (0, 0, grid[0] * patch[0], grid[1] * patch[1]))


@st.composite
def views(draw: st.DrawFn, least: int = 1) -> tuple[Size, Lattice, Lattice]:
    """A picture of any aspect, and two views of it, each of its own size, patch and fit, as they are extracted."""
    height, width = draw(st.tuples(st.integers(3, 90), st.integers(3, 90)))
    lattices = []
    for _ in range(2):
        patch = draw(PATCHES)
        grid = draw(st.tuples(st.integers(least, 12), st.integers(least, 12)))
        picture_HW3 = np.zeros((height, width, 3), np.uint8)
        _, box = fit_picture(picture_HW3, grid[0] * patch[0], grid[1] * patch[1], draw(FITS), (0.5, 0.5, 0.5))
        lattices.append(Lattice(grid, patch, box))
    return (height, width), lattices[0], lattices[1]


def mirrored(lattice: Lattice) -> Lattice:
    top, left, bottom, right = lattice.box
    width_px = lattice.grid[1] * lattice.patch[1]
    return Lattice(lattice.grid, lattice.patch, (top, width_px - right, bottom, width_px - left))


@given(SIDES, SIDES, SIDES, SIDES, PATCHES, PATCHES, st.booleans())
def test_over_whole_views_it_is_torchs(rows, columns, new_rows, new_columns, patch, new_patch, align_corners):
    assume(not align_corners or min(new_rows, new_columns) > 1)  # where torch takes the first, and this the middle
    source, target = whole((rows, columns), patch), whole((new_rows, new_columns), new_patch)
    found_2PQ = resample_maps(noise(2, rows, columns), source, target, align_corners)
    maps_12RC = torch.from_numpy(noise(2, rows, columns))[None]
    expected = interpolate(maps_12RC, (new_rows, new_columns), mode="bilinear", align_corners=align_corners)
    assert found_2PQ.dtype == np.float32
    np.testing.assert_allclose(found_2PQ, expected[0].numpy(), rtol=0, atol=1e-5)


def places_of(lattice: Lattice, axis: int, align_corners: bool) -> np.ndarray:
    """Where in the picture its patches' values stand, 0 at its beginning and 1 at its end."""
    start, stop = lattice.box[axis], lattice.box[axis + 2]
    count, size = lattice.grid[axis], lattice.patch[axis]
    if align_corners:
        return (np.linspace(0, count * size - 1, count) - start) / (stop - 1 - start)
    return ((np.arange(count) + 0.5) * size - start) / (stop - start)


@given(views(least=3), st.booleans(), st.sampled_from([0.0, 1.5, 3.0]))
def test_a_smooth_function_of_the_picture_comes_back(case, align_corners, bend):
    """Straight ones exactly, bent ones as well as they can be interpolated linearly: step² / 8 · largest curvature."""
    _, source, target = case
    for lattice in (source, target):
        valid_RC = valid_patch_masks([lattice])[0].reshape(lattice.grid)
        assume(min(valid_RC.any(axis=1).sum(), valid_RC.any(axis=0).sum()) >= 3)
    (ys, xs), (new_ys, new_xs) = (
        [places_of(lattice, axis, align_corners) for axis in (0, 1)] for lattice in (source, target)
    )

    def function(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (0.3 * y[:, None] - 0.5 * x + 0.1 * (np.sin(bend * y)[:, None] + np.cos(bend * x))).astype(np.float32)

    found_PQ = resample_maps(function(ys, xs), source, target, align_corners)
    valid_RC = valid_patch_masks([source])[0].reshape(source.grid)
    inside = [
        (new >= old[is_valid][0]) & (new <= old[is_valid][-1])
        for new, old, is_valid in ((new_ys, ys, valid_RC.any(axis=1)), (new_xs, xs, valid_RC.any(axis=0)))
    ]
    error = sum(0.1 * bend**2 * (places[1] - places[0]) ** 2 / 8 for places in (ys, xs))
    wrong_PQ = np.abs(found_PQ - function(new_ys, new_xs))[np.ix_(*inside)]
    assert wrong_PQ.size == 0 or wrong_PQ.max() <= error + 2e-6


@given(views(), st.booleans(), st.floats(-2, 2, width=32))
def test_a_constant_map_stays_constant(case, align_corners, value):
    _, source, target = case
    maps_2RC = np.full((2, *source.grid), value, np.float32)
    np.testing.assert_array_equal(
        resample_maps(maps_2RC, source, target, align_corners), np.full((2, *target.grid), value, np.float32)
    )


@given(views(), st.booleans())
def test_what_is_no_picture_has_no_share(case, align_corners):
    _, source, target = case
    assume(source != target)
    valid_RC = valid_patch_masks([source])[0].reshape(source.grid)
    is_between_RC = valid_RC.any(axis=1)[:, None] & valid_RC.any(axis=0)
    map_RC = noise(*source.grid)
    found = resample_maps(map_RC, source, target, align_corners)
    poisoned = resample_maps(np.where(is_between_RC, map_RC, np.float32(1e9)), source, target, align_corners)
    np.testing.assert_array_equal(found, poisoned)
    assert map_RC[is_between_RC].min() <= found.min()
    assert found.max() <= map_RC[is_between_RC].max()


@given(views(), st.booleans())
@example(((90, 3), whole((1, 2), (8, 8)), Lattice((1, 2), (8, 8), (0, 0, 8, 1))), True)  # one pixel wide in the target
def test_a_mirrored_view_gives_the_mirrored_map(case, align_corners):
    _, source, target = case
    map_RC = noise(*source.grid)
    plain = resample_maps(map_RC, source, target, align_corners)
    other = resample_maps(np.ascontiguousarray(map_RC[:, ::-1]), mirrored(source), mirrored(target), align_corners)
    np.testing.assert_allclose(other[:, ::-1], plain, rtol=0, atol=1e-6)


@given(views(), st.booleans())
def test_upsampling_has_its_values_stand_where_it_has(case, align_corners):
    """The picture itself, each pixel a patch, is a view like any other."""
    size, source, _ = case
    map_RC = noise(*source.grid)
    at_pixels_IJ = upsample_maps(map_RC, size, source.box, source.patch, align_corners)
    found_IJ = resample_maps(map_RC, source, whole(size, (1, 1)), align_corners)
    np.testing.assert_allclose(found_IJ, at_pixels_IJ, rtol=0, atol=1e-5)


def test_a_view_onto_itself_changes_no_bit():
    lattice = whole((5, 7), (8, 8))
    map_RC = noise(5, 7)
    assert resample_maps(map_RC, lattice, lattice, True) is map_RC


def test_pictures_of_different_boxes_are_brought_one_by_one():
    grid, patch = (4, 6), (16, 16)
    sources = [Lattice(grid, patch, box) for box in ((0, 0, 64, 96), (0, 0, 64, 50), (0, 0, 64, 96), (0, 0, 20, 96))]
    targets = [whole((5, 3), patch)] * 4
    maps_4HS = noise(4, 2, 24)
    found_4HT = resample_to_lattices(targets, maps_4HS, sources, False)
    assert found_4HT.shape == (4, 2, 15)
    for found_HT, maps_HS, source, target in zip(found_4HT, maps_4HS, sources, targets, strict=True):
        expected = resample_maps(maps_HS.reshape(2, *grid), source, target, False)
        np.testing.assert_array_equal(found_HT.reshape(2, 5, 3), expected)


def of_kind(kind: ScoreKind, map_MT: np.ndarray, valid_MT: np.ndarray) -> np.ndarray:
    low = np.where(valid_MT, map_MT, np.inf).min(axis=1, keepdims=True) if kind == "minmax" else 0
    high = np.where(valid_MT, map_MT, -np.inf).max(axis=1, keepdims=True)
    return ((map_MT - low) / (high - low)).astype(np.float32)


KINDS = [("mean", "cosine01"), ("mean", "probability"), ("sum", "minmax"), ("sum", "share_of_max")]


@pytest.mark.parametrize(("merge", "kind"), KINDS)
@pytest.mark.parametrize("times", [1, 2, 3, 7])
def test_several_of_one_map_are_that_map(merge, kind, times):
    valid_MT = np.random.default_rng(1).random((50, 24)) < 0.7
    map_MT = noise(50, 24) if merge == "mean" else of_kind(kind, noise(50, 24), valid_MT)
    np.testing.assert_array_equal(merge_maps([map_MT] * times, valid_MT, merge, kind), map_MT)


@pytest.mark.parametrize(("merge", "kind"), KINDS)
def test_scores_stay_of_their_kind_and_are_as_the_mean_is(merge, kind):
    valid_MT = np.random.default_rng(1).random((50, 24)) < 0.7
    maps = [noise(50, 24), noise(50, 24)[::-1].copy(), noise(24, 50).T.copy()]
    found_MT = merge_maps(maps, valid_MT, merge, kind)
    mean_MT = np.mean(maps, axis=0)
    expected_MT = mean_MT if merge == "mean" else of_kind(kind, mean_MT, valid_MT)
    np.testing.assert_allclose(found_MT[valid_MT], expected_MT[valid_MT], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found_MT[~valid_MT], maps[0][~valid_MT])
    inside = found_MT[valid_MT]
    assert (inside.min(), inside.max()) >= (0, 0)
    assert inside.max() <= 1
    if merge == "sum":
        assert (np.where(valid_MT, found_MT, 0).max(axis=1) == 1).all()


@pytest.mark.parametrize(("merge", "kind"), KINDS)
def test_maps_of_heads_are_as_their_mean_is(merge, kind):
    valid_MT = np.random.default_rng(1).random((9, 24)) < 0.7
    heads = [noise(9, 3, 24), noise(9, 3, 24)[:, ::-1].copy() ** 2]
    found_MHT = merge_maps(heads, valid_MT, merge, kind)
    expected_MT = merge_maps([each.mean(axis=1) for each in heads], valid_MT, merge, kind)
    assert found_MHT.shape == (9, 3, 24)
    np.testing.assert_allclose(found_MHT.mean(axis=1), expected_MT, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["minmax", "share_of_max"])
def test_an_empty_map_stays_empty(kind):
    empty_MT = np.zeros((2, 24), np.float32)
    np.testing.assert_array_equal(merge_maps([empty_MT, empty_MT], empty_MT == 0, "sum", kind), empty_MT)


def test_turning_twice_changes_nothing():
    maps_23T = noise(2, 3, 24)
    once = mirror_patches(maps_23T, (4, 6))
    np.testing.assert_array_equal(once.reshape(2, 3, 4, 6), maps_23T.reshape(2, 3, 4, 6)[..., ::-1])
    np.testing.assert_array_equal(mirror_patches(once, (4, 6)), maps_23T)
