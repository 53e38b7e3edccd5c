from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torchvision.transforms import (  # type: ignore[import-untyped]
    CenterCrop,
    Compose,
    Normalize,
    Resize,
    ToTensor,
)

from maskmill.stages.vision.fitting import as_input, fit_picture, valid_patches

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture_of(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * 1000 + columns).integers(0, 256, (rows, columns, 3), np.uint8)


@pytest.mark.parametrize("size", [(375, 500), (40, 30), (400, 400), (9, 1000)])
def test_squash_and_input_are_the_papers_transform(size):
    """CST: Resize((400, 400)), ToTensor, Normalize."""
    picture = picture_of(*size)
    squashed, box = fit_picture(picture, 400, 400, "squash", MEAN)
    paper: Any = Compose([Resize((400, 400)), ToTensor(), Normalize(MEAN, STD)])
    assert box == (0, 0, 400, 400)
    found = as_input(torch.from_numpy(squashed[None]), MEAN, STD)
    assert torch.equal(found[0], paper(Image.fromarray(picture)))
    assert found.is_contiguous()


def test_rows_come_before_columns():
    squashed, box = fit_picture(picture_of(50, 60), 32, 64, "squash", MEAN)
    assert squashed.shape == (32, 64, 3)
    assert box == (0, 0, 32, 64)
    with Image.fromarray(picture_of(50, 60)) as image:
        assert np.array_equal(squashed, np.array(image.resize((64, 32), Image.Resampling.BILINEAR)))


@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([(96, 96), (64, 128), (128, 64)]))
def test_padding_keeps_the_aspect_and_fills_one_side(height, width, size):
    padded, (top, left, bottom, right) = fit_picture(picture_of(height, width), size[0], size[1], "pad", MEAN)
    assert padded.shape == (*size, 3)
    assert (top, left) == (0, 0)
    assert bottom == size[0] or right == size[1]
    scale = min(size[0] / height, size[1] / width)
    assert abs(bottom - height * scale) <= 0.5 + 1e-9 or bottom == 1
    assert abs(right - width * scale) <= 0.5 + 1e-9 or right == 1
    outside = np.ones(size, bool)
    outside[top:bottom, left:right] = False
    assert (padded[outside] == (124, 116, 104)).all()
    with Image.fromarray(picture_of(height, width)) as image:
        inside = np.array(image.resize((right, bottom), Image.Resampling.BILINEAR))
    assert np.array_equal(padded[:bottom, :right], inside)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 33, 96, 224]))
def test_a_square_crop_is_the_transform_that_classifiers_are_judged_with(height, width, side):
    """torchvision's Resize of the shorter side and CenterCrop, of a Pillow image."""
    picture = picture_of(height, width)
    cropped, (top, left, bottom, right) = fit_picture(picture, side, side, "crop", MEAN)
    expected: Any = Compose([Resize(side), CenterCrop(side)])
    assert np.array_equal(cropped, np.asarray(expected(Image.fromarray(picture))))
    assert max(top, left) <= 0 < side <= min(bottom, right)
    assert (top, bottom) == (0, side) or (left, right) == (0, side)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(96, 96), (64, 128), (128, 64), (1, 50)]))
def test_a_crop_is_the_middle_of_the_picture_that_covers_it(height, width, size):
    """The box says where the whole picture lies, and what of it is cut off is so on both sides alike."""
    picture = picture_of(height, width)
    cropped, (top, left, bottom, right) = fit_picture(picture, size[0], size[1], "crop", MEAN)
    high, wide = bottom - top, right - left
    scale = max(size[0] / height, size[1] / width)
    assert high == size[0] or wide == size[1]
    assert -1e-9 <= height * scale - high < 1 + 1e-9
    assert -1e-9 <= width * scale - wide < 1 + 1e-9
    assert abs(-top - (bottom - size[0])) <= 1
    assert abs(-left - (right - size[1])) <= 1
    whole = np.asarray(Image.fromarray(picture).resize((wide, high), Image.Resampling.BILINEAR))
    assert np.array_equal(cropped, whole[-top : size[0] - top, -left : size[1] - left])


def test_padding_is_nearly_nothing_to_the_backbone():
    padded, (_, _, bottom, _) = fit_picture(picture_of(20, 40), 64, 64, "pad", MEAN)
    assert as_input(torch.from_numpy(padded[None]), MEAN, STD)[0, :, bottom:].abs().max() < 0.5 / 255 / 0.22


@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(1, 60), st.integers(1, 60), st.sampled_from([(8, 8), (16, 8)])
)
def test_valid_patches_are_more_than_half_picture(top, left, height, width, patch):
    grid = (6, 12)
    rows, columns = grid[0] * patch[0], grid[1] * patch[1]
    inside = np.zeros((rows, columns), bool)
    inside[top : top + height, left : left + width] = True
    box = (top, left, min(top + height, rows), min(left + width, columns))
    share = inside.reshape(grid[0], patch[0], grid[1], patch[1]).mean(axis=(1, 3))
    expected = share > 0.5
    assert np.array_equal(valid_patches(box, patch, grid), expected if expected.any() else share > 0)


def test_a_picture_that_fills_no_patch_has_the_patches_that_it_touches():
    valid = valid_patches((0, 0, 7, 224), (16, 16), (14, 14))
    assert valid[0].all()
    assert not valid[1:].any()
