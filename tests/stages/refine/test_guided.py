"""The guided filter against a least-squares fit in every window, and what it promises: flat is averaged, edges stay."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from maskmill.manifests.errors import ConfigError
from maskmill.stages.maps.one_thread import one_thread
from maskmill.stages.refine.guided import guided_filter
from maskmill.stages.refine.presets import MEASURED, GuidedPreset, parse_guided


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """As in the stage; a second thread would mostly be waited for."""
    with one_thread():
        yield


def filtered(picture: np.ndarray, scores: np.ndarray, preset: GuidedPreset, strip_pixels: int = 2**19) -> np.ndarray:
    """Of one picture, rows and columns first."""
    pictures = torch.from_numpy(picture).permute(2, 0, 1)[None]
    return guided_filter(pictures, torch.from_numpy(scores)[None], preset, strip_pixels)[0].numpy()


def window(row: int, column: int, size: tuple[int, int], radius: int) -> tuple[slice, slice]:
    return tuple(
        slice(max(0, at - radius), min(length, at + radius + 1)) for at, length in zip((row, column), size, strict=True)
    )  # type: ignore[return-value]


def box_mean(values: np.ndarray, radius: int) -> np.ndarray:
    return np.array(
        [
            [values[window(row, column, values.shape, radius)].mean() for column in range(values.shape[1])]
            for row in range(values.shape[0])
        ]
    )


def by_hand(picture: np.ndarray, scores: np.ndarray, preset: GuidedPreset) -> np.ndarray:
    """Of each window the ridge regression of the scores on the colours, and of each pixel the mean of its windows'."""
    size, radius = picture.shape[:2], preset.radius
    colours = picture.astype(np.float64) / 255
    fits = np.zeros((*size, 4))
    for row, column in np.ndindex(*size):
        where = window(row, column, size, radius)
        guide, values = colours[where].reshape(-1, 3), scores[where].reshape(-1).astype(np.float64)
        centred = guide - guide.mean(axis=0)
        # The normal equations of min Σ (aᵀI + b − p)² + n ε |a|², which are the paper's.
        slope = np.linalg.solve(
            centred.T @ centred + len(guide) * preset.eps * np.eye(3), centred.T @ (values - values.mean())
        )
        fits[row, column] = *slope, values.mean() - slope @ guide.mean(axis=0)
    found = np.zeros(size)
    for row, column in np.ndindex(*size):
        mean = fits[window(row, column, size, radius)].reshape(-1, 4).mean(axis=0)
        found[row, column] = mean[:3] @ colours[row, column] + mean[3]
    return found


def picture_of(size: tuple[int, int], seed: int, levels: int = 256) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, levels, (*size, 3))
    return (values * (255 // (levels - 1))).astype(np.uint8)


def scores_of(size: tuple[int, int], seed: int, labels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).random((labels, *size), np.float32)


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 9),
    st.sampled_from([2, 256]),
    st.integers(1, 12),
    st.sampled_from([1e-6, 1e-3, 1.0]),
)
def test_it_is_a_ridge_regression_in_every_window(
    size: tuple[int, int], seed: int, levels: int, radius: int, eps: float
) -> None:
    picture, scores, preset = picture_of(size, seed, levels), scores_of(size, seed), GuidedPreset(radius, eps)
    for found, one in zip(filtered(picture, scores, preset), scores, strict=True):
        np.testing.assert_allclose(found, by_hand(picture, one, preset), atol=1e-5)


def test_grey_pictures_have_one_colour_in_three() -> None:
    """Σ has rank one, and ε alone makes it regular."""
    grey = np.repeat(picture_of((8, 9), 0)[..., :1], 3, axis=2)
    scores, preset = scores_of((8, 9), 1, 1), GuidedPreset(3, 1e-6)
    np.testing.assert_allclose(filtered(grey, scores, preset)[0], by_hand(grey, scores[0], preset), atol=1e-5)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 255))
@settings(max_examples=12)
def test_without_structure_it_is_the_box_mean_twice(height: int, width: int, radius: int, colour: int) -> None:
    """Once for the fit of each window, once over the windows."""
    picture, scores = np.full((height, width, 3), colour, np.uint8), scores_of((height, width), 0, 1)
    expected = box_mean(box_mean(scores[0].astype(np.float64), radius), radius)
    np.testing.assert_allclose(filtered(picture, scores, GuidedPreset(radius, 1e-3))[0], expected, atol=1e-6)


def test_a_step_edge_is_kept_and_noise_beside_it_is_not() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 20:] = 255
    clean = (picture[..., 0] > 0).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 0.2, clean.shape).astype(np.float32)
    found = filtered(picture, np.stack([clean, noisy]), GuidedPreset(8, 1e-4))
    assert np.abs(found[0] - clean).max() < 0.01
    assert np.abs(found[1] - clean).max() < 0.15
    blurred = box_mean(box_mean(clean, 8), 8)
    assert np.abs(blurred - clean).max() > 0.4, "where the picture shows no edge there is none"


def test_a_mask_off_its_edge_moves_to_it() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:] = (200, 120, 40)
    scores = np.zeros((1, 40, 60), np.float32)
    scores[0, :, 36:] = 1
    found = filtered(picture, scores, GuidedPreset(20, 1e-3))[0]
    assert np.array_equal(found > 0.5, picture[..., 0] > 0)


def test_it_is_linear_and_keeps_constants() -> None:
    picture, (one, two) = picture_of((20, 30), 0), scores_of((20, 30), 1)
    stacked = np.stack([one, two, one + two, np.full_like(one, 0.4)])
    found = filtered(picture, stacked, GuidedPreset(4, 1e-3))
    np.testing.assert_allclose(found[0] + found[1], found[2], atol=1e-6)
    np.testing.assert_allclose(found[3], 0.4, atol=1e-6)


@given(st.integers(1, 70), st.integers(1, 30), st.integers(1, 9), st.sampled_from([1, 200, 700]))
@settings(max_examples=12)
def test_strips_do_not_show_and_neighbours_in_the_batch_change_no_bit(
    height: int, width: int, radius: int, strip: int
) -> None:
    pictures = [picture_of((height, width), seed) for seed in range(2)]
    scores = [scores_of((height, width), seed) for seed in range(2)]
    preset = GuidedPreset(radius, 1e-3)
    together = guided_filter(
        torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(scores)), preset, strip
    ).numpy()
    for number in range(2):
        assert np.array_equal(together[number], filtered(pictures[number], scores[number], preset, strip))
        np.testing.assert_allclose(
            together[number], filtered(pictures[number], scores[number], preset, 10**9), atol=1e-6
        )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    picture, scores = picture_of((301, 203), 0), scores_of((301, 203), 1)
    expected = filtered(picture, scores, MEASURED)
    torch.set_num_threads(threads)
    assert np.array_equal(filtered(picture, scores, MEASURED), expected)


def test_radius_and_eps_are_written_as_they_are_read() -> None:
    assert parse_guided("") == MEASURED == GuidedPreset(15, 1e-3)
    for preset in (MEASURED, GuidedPreset(60, 1e-6), GuidedPreset(1, 2.0)):
        assert parse_guided(str(preset)) == preset
    assert parse_guided(" 60 , 1e-6 ") == GuidedPreset(60, 1e-6)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("irn", r"preset.*guided.*'irn'.*RADIUS,EPS"),
        ("31", r"'31'.*RADIUS,EPS"),
        ("3.5,0.1", r"'3\.5,0\.1'.*RADIUS,EPS"),
        ("0,0.1", r"guided.*0,0\.1.*radius.*1.*eps.*0"),
        ("31,0", r"guided.*31,0\.0"),
        ("31,nan", r"guided.*31,nan"),
        ("31,inf", r"guided.*31,inf"),
    ],
)
def test_a_preset_that_cannot_be_read_is_one_sentence(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_guided(text)
