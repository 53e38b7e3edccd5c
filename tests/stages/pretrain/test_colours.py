"""Colour distortions against the formulas, pixel by pixel in float64."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from maskmill.stages.pretrain.colours import (
    blur_pictures,
    change_brightness,
    change_contrast,
    change_saturation,
    grey,
    solarise_pictures,
    turn_hue,
)


def pictures(batch: int = 2, height: int = 6, width: int = 5) -> Tensor:
    found = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    found[:, :, 0, 0] = 0.5  # a grey, a black, a white, and a tie of two colours
    found[:, :, 0, 1], found[:, :, 0, 2] = 0, 1
    found[:, 1, 0, 3] = found[:, 0, 0, 3]
    return found


def luma(pixel: np.ndarray) -> float:
    return float(0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2])


def by_pixel(function, given_pictures: Tensor) -> np.ndarray:
    """`function` of picture b, and of a pixel's three values."""
    exact = given_pictures.double().numpy().copy()
    for b, i, j in np.ndindex(exact.shape[0], *exact.shape[2:]):
        exact[b, :, i, j] = np.clip(function(b, exact[b, :, i, j]), 0, 1)
    return exact


FACTORS = torch.tensor([0.6, 1.4])


def test_brightness():
    exact = by_pixel(lambda b, pixel: pixel * float(FACTORS[b]), pictures())
    assert np.abs(change_brightness(pictures(), FACTORS).numpy() - exact).max() < 1e-6


def test_contrast():
    means = [np.mean([luma(p) for p in picture.reshape(3, -1).T]) for picture in pictures().double().numpy()]
    exact = by_pixel(lambda b, pixel: means[b] + float(FACTORS[b]) * (pixel - means[b]), pictures())
    assert np.abs(change_contrast(pictures(), FACTORS).numpy() - exact).max() < 1e-6


def test_saturation_and_grey():
    exact = by_pixel(lambda b, pixel: luma(pixel) + float(FACTORS[b]) * (pixel - luma(pixel)), pictures())
    assert np.abs(change_saturation(pictures(), FACTORS).numpy() - exact).max() < 1e-6
    exact = by_pixel(lambda b, pixel: np.full(3, luma(pixel)), pictures())
    assert np.abs(grey(pictures()).expand(-1, 3, -1, -1).numpy() - exact).max() < 1e-6


@given(st.floats(-0.5, 0.5, width=32), st.floats(-0.5, 0.5, width=32))
def test_hue(first, second):
    turns = torch.tensor([first, second])

    def turned(b: int, pixel: np.ndarray) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return np.array(colorsys.hsv_to_rgb((hue + float(turns[b])) % 1, saturation, value))

    assert np.abs(turn_hue(pictures(), turns).numpy() - by_pixel(turned, pictures())).max() < 1e-5


def test_a_neutral_strength_changes_nothing():
    one, none = torch.ones(2), torch.zeros(2)
    for found in (
        change_brightness(pictures(), one),
        change_contrast(pictures(), one),
        change_saturation(pictures(), one),
    ):
        assert torch.equal(found, pictures())
    assert (turn_hue(pictures(), none) - pictures()).abs().max() < 1e-6
    assert (turn_hue(pictures(), one) - pictures()).abs().max() < 1e-5
    assert torch.equal(blur_pictures(pictures(), none), pictures())


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur(sigma):
    given_pictures = pictures()
    exact = np.zeros(given_pictures.shape)
    for b, c, i, j in np.ndindex(*given_pictures.shape):
        total = 0.0
        for k, m in np.ndindex(6, 5):
            weight = np.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * sigma**2))
            exact[b, c, i, j] += weight * float(given_pictures[b, c, k, m])
            total += weight
        exact[b, c, i, j] /= total
    assert np.abs(blur_pictures(given_pictures, torch.full((2,), sigma)).numpy() - exact).max() < 1e-5


def test_each_picture_is_blurred_by_its_own_sigma_and_a_plain_one_stays():
    sigmas = torch.tensor([0.0, 1.5])
    found = blur_pictures(pictures(), sigmas)
    assert torch.equal(found[0], pictures()[0])
    assert torch.equal(found[1], blur_pictures(pictures()[1:], sigmas[1:])[0])
    plain = torch.full((2, 3, 30, 20), 0.3)
    assert (blur_pictures(plain, sigmas) - plain).abs().max() < 1e-6


def test_solarising_inverts_the_bright_half():
    values = torch.tensor([0.0, 0.4, 0.5, 0.7, 1.0]).expand(2, 3, 1, 5).contiguous()
    for line in solarise_pictures(values).flatten(0, 2).tolist():
        assert line == pytest.approx([0.0, 0.4, 0.5, 0.3, 0.0])
