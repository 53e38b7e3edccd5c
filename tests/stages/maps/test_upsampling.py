"""Upsampling against torch over whole views, and against its definition pixel by pixel over boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn.functional import interpolate

from maskmill.stages.maps.cst import cosine_map, normalise_queries
from maskmill.stages.maps.upsampling import upsample_maps
from maskmill.stages.vision.fitting import Box, fit_picture, valid_patches

SIDES = st.integers(1, 12)
PIXELS = st.integers(1, 90)


def map_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


@given(SIDES, SIDES, PIXELS, PIXELS, st.sampled_from([(1, 1), (8, 8), (14, 16)]), st.booleans())
def test_over_the_whole_view_it_is_torchs(rows, columns, height, width, patch, align_corners):
    found = upsample_maps(
        map_of(rows, columns), (height, width), (0, 0, rows * patch[0], columns * patch[1]), patch, align_corners
    )
    expected = interpolate(
        torch.from_numpy(map_of(rows, columns))[None, None],
        (height, width),
        mode="bilinear",
        align_corners=align_corners,
    )
    assert found.dtype == np.float32
    assert np.abs(found - expected[0, 0].numpy()).max() < 1e-5


@pytest.mark.parametrize("threshold", [0.3, 0.35, 0.4, 0.45, 0.5])
def test_aligned_corners_give_the_published_masks(reference: Path, threshold):
    with np.load(reference / "golden/cst_pseudo_masks.npz") as golden:
        queries = normalise_queries(torch.from_numpy(golden["support_cls_query"]).flatten(1), 6)
        index = golden["thresholds"].tolist().index(threshold)
        for side, size in (("support", (72, 72)), ("query", (61, 83))):
            keys = torch.from_numpy(golden[f"{side}_keys"]).transpose(1, 2).flatten(2)
            maps = cosine_map(keys, queries).view(3, 9, 9).numpy()
            masks = upsample_maps(maps, size, (0, 0, 72, 72), (8, 8), align_corners=True) > threshold
            kept = golden["class_present"] if side == "query" else np.ones(3, bool)
            assert np.array_equal(masks[kept], golden[f"{side}_masks"][index][kept])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], Box]:
    """Grid, patch, and any box in the view."""
    grid, patch = draw(st.tuples(SIDES, SIDES)), draw(st.sampled_from([(8, 8), (4, 6), (1, 3)]))
    top = draw(st.integers(0, grid[0] * patch[0] - 1))
    left = draw(st.integers(0, grid[1] * patch[1] - 1))
    bottom = draw(st.integers(top + 1, grid[0] * patch[0]))
    right = draw(st.integers(left + 1, grid[1] * patch[1]))
    return grid, patch, (top, left, bottom, right)


def sampled(map_RC: np.ndarray, valid_RC: np.ndarray, at: tuple[float, float]) -> float:
    """Bilinear at a place in units of patches, moved to the nearest valid row and column where it lies outside."""
    weights = []
    for place, is_valid in zip(at, (np.any(valid_RC, axis=1), np.any(valid_RC, axis=0)), strict=True):
        places = np.flatnonzero(is_valid)
        nearest = min(max(place, places[0]), places[-1])
        below = int(np.floor(nearest))
        weights.append({below: below + 1 - nearest, below + 1: nearest - below})
    return sum(
        float(map_RC[r, c]) * wr * wc for r, wr in weights[0].items() for c, wc in weights[1].items() if wr * wc > 0
    )


@given(boxes(), st.integers(1, 9), st.integers(1, 9))
def test_pixels_take_the_value_at_their_own_centre(case, height, width):
    grid, patch, box = case
    found = upsample_maps(map_of(*grid), (height, width), box, patch, align_corners=False)
    valid = valid_patches(box, patch, grid)
    for i, j in np.ndindex(height, width):
        centre = (
            box[0] + (i + 0.5) / height * (box[2] - box[0]),
            box[1] + (j + 0.5) / width * (box[3] - box[1]),
        )
        at = (centre[0] / patch[0] - 0.5, centre[1] / patch[1] - 0.5)  # patch r has its centre at (r + ½) sizes
        assert abs(found[i, j] - sampled(map_of(*grid), valid, at)) < 1e-5


@given(boxes())
def test_aligned_corners_of_a_box_are_cut_from_those_of_the_whole_view(case):
    """At the box's own size, wherever only valid patches have a share in the whole view's pixel."""
    grid, patch, (top, left, bottom, right) = case
    view = (grid[0] * patch[0], grid[1] * patch[1])
    whole = upsample_maps(map_of(*grid), view, (0, 0, *view), patch, align_corners=True)
    found = upsample_maps(
        map_of(*grid), (bottom - top, right - left), (top, left, bottom, right), patch, align_corners=True
    )
    invalid = ~valid_patches((top, left, bottom, right), patch, grid)
    rows_and_columns = (np.all(invalid, axis=1)[:, None] | np.all(invalid, axis=0)).astype(np.float32)
    reached = upsample_maps(rows_and_columns, view, (0, 0, *view), patch, align_corners=True)
    of_valid = reached[top:bottom, left:right] < 1e-6
    assert np.abs(found - whole[top:bottom, left:right])[of_valid].max(initial=0) < 1e-5


@given(boxes(), st.integers(2, 30), st.integers(2, 30))
def test_aligned_corners_run_from_corner_pixel_to_corner_pixel_of_the_box(case, height, width):
    grid, patch, box = case
    view = (grid[0] * patch[0], grid[1] * patch[1])
    found = upsample_maps(map_of(*grid), (height, width), box, patch, align_corners=True)
    for i, y in ((0, box[0]), (height - 1, box[2] - 1)):
        for j, x in ((0, box[1]), (width - 1, box[3] - 1)):
            at = (y * (grid[0] - 1) / max(view[0] - 1, 1), x * (grid[1] - 1) / max(view[1] - 1, 1))
            exact = sampled(map_of(*grid), valid_patches(box, patch, grid), at)
            assert abs(found[i, j] - exact) < 1e-5


@given(boxes(), PIXELS, PIXELS, st.booleans())
def test_patches_outside_reach_no_pixel_and_no_value_is_passed(case, height, width, align_corners):
    grid, patch, box = case
    maps = map_of(*grid)
    valid = valid_patches(box, patch, grid)
    outside = ~(np.any(valid, axis=1)[:, None] & np.any(valid, axis=0))
    found = upsample_maps(maps, (height, width), box, patch, align_corners)
    assert maps[~outside].min() <= found.min()
    assert found.max() <= maps[~outside].max()
    maps[outside] = np.nan
    assert np.array_equal(upsample_maps(maps, (height, width), box, patch, align_corners), found)


@given(st.integers(8, 300), st.integers(8, 300))
def test_letterboxed_pictures_use_exactly_their_valid_patches(height, width):
    """Rows and columns taken apart are the valid patches themselves, as they need not be for any box."""
    _, box = fit_picture(np.zeros((height, width, 3), np.uint8), 96, 128, "pad", (0.5, 0.5, 0.5))
    valid = valid_patches(box, (16, 16), (6, 8))
    assert np.array_equal(valid, np.any(valid, axis=1)[:, None] & np.any(valid, axis=0))
    maps = np.where(valid, np.float32(0.3), np.float32(np.nan))
    for align_corners in (True, False):
        assert (upsample_maps(maps, (height, width), box, (16, 16), align_corners) == np.float32(0.3)).all()


def test_a_place_in_the_view_is_found_again_in_a_letterboxed_picture():
    """A view of 8×16 patches, whose left quarter is a picture of 600×300: each patch is 75 of its pixels wide."""
    _, box = fit_picture(np.zeros((600, 300, 3), np.uint8), 128, 256, "pad", (0.0, 0.0, 0.0))
    assert box == (0, 0, 128, 64)
    lower, right = np.zeros((2, 8, 16), np.float32)
    lower[6:] = 1
    right[:, 1:] = 1
    of_lower, of_right = upsample_maps(np.stack([lower, right]), (600, 300), box, (16, 16), align_corners=False) > 0.5
    assert of_lower[450:].all()
    assert not of_lower[:450].any()
    assert of_right[:, 75:].all()
    assert not of_right[:, :75].any()


def test_flat_maps_stay_below_their_own_value():
    """So that a threshold equal to the only value of a map leaves its picture empty after upsampling, too."""
    for value in np.random.default_rng(0).random(50, dtype=np.float32):
        for align_corners in (True, False):
            flat = np.full((7, 9), value)
            assert not (upsample_maps(flat, (61, 83), (0, 0, 56, 72), (8, 8), align_corners) > value).any()


def test_leading_axes_and_half_floats():
    maps = map_of(2, 3, 5, 4)
    found = upsample_maps(maps, (31, 17), (0, 0, 33, 32), (8, 8), align_corners=False)
    assert found.shape == (2, 3, 31, 17)
    for a, b in np.ndindex(2, 3):
        assert np.array_equal(found[a, b], upsample_maps(maps[a, b], (31, 17), (0, 0, 33, 32), (8, 8), False))
    half = upsample_maps(maps.astype(np.float16), (31, 17), (0, 0, 33, 32), (8, 8), align_corners=False)
    assert half.dtype == np.float32
    assert np.abs(half - found).max() < 1e-3


@pytest.mark.parametrize("box", [(0, 0, 33, 32), (-1, 0, 8, 8), (8, 0, 8, 8), (0, 0, 8, 41)])
def test_a_box_that_is_not_in_the_view_is_refused(box):
    with pytest.raises(AssertionError, match="not in the view"):
        upsample_maps(map_of(4, 5), (10, 10), box, (8, 8), align_corners=True)
