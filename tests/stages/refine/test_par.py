"""Pixel-adaptive refinement against its formula written out pixel by pixel in float64, for any size."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional

from maskmill.manifests.errors import ConfigError
from maskmill.stages.maps.one_thread import one_thread
from maskmill.stages.refine.par import adapt_scores, pixel_adaptive_scores, probabilities
from maskmill.stages.refine.presets import PAR_PRESETS, find_par_preset

TOCO = find_par_preset("toco")
SHORT = replace(TOCO, iterations=3)  # the formula pixel by pixel takes a millisecond a pixel and iteration


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """As in the stage; a second thread would mostly be waited for."""
    with one_thread():
        yield


def neighbours(row: int, column: int, size: tuple[int, int]) -> Iterator[tuple[int, int, float]]:
    """Row, column and distance; beyond the edge the place is the nearest at the edge, and the distance stays."""
    for dilation in (1, 2, 4, 8, 12, 24):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if down or right:
                    at_row = min(max(row + down * dilation, 0), size[0] - 1)
                    at_column = min(max(column + right * dilation, 0), size[1] - 1)
                    yield at_row, at_column, dilation * math.hypot(down, right)


def softmaxed(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / math.fsum(powers) for power in powers]


def deviation(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def pixel_weights(picture: np.ndarray, row: int, column: int) -> list[tuple[int, int, float]]:
    """wetr/PAR.py of AFA, for one pixel: where its neighbours are, and what each weighs."""
    near = list(neighbours(row, column, picture.shape[1:]))
    unlike = [0.0] * len(near)
    for channel in picture:
        values = [float(channel[at_row, at_column]) for at_row, at_column, _ in near]
        scale = (deviation(values) + 1e-8) * 0.3
        for number, value in enumerate(values):
            unlike[number] -= ((value - float(channel[row, column])) / scale) ** 2 / 3
    distances = [distance for _, _, distance in near]
    scale = (deviation(distances) + 1e-8) * 0.3
    far = softmaxed([-((distance / scale) ** 2) for distance in distances])
    alike = softmaxed(unlike)
    return [(at[0], at[1], one + 0.01 * two) for at, one, two in zip(near, alike, far, strict=True)]


def by_hand(picture: np.ndarray, scores: np.ndarray, iterations: int) -> np.ndarray:
    size = picture.shape[1:]
    weights = {place: pixel_weights(picture, *place) for place in np.ndindex(*size)}
    for _ in range(iterations):
        found = np.zeros_like(scores)
        for place, near in weights.items():
            for row, column, weight in near:
                found[:, *place] += weight * scores[:, row, column]
        scores = found
    return scores


def picture_of(size: tuple[int, int], seed: int, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, (3, *size)).astype(np.float32) / (levels - 1)


def scores_of(size: tuple[int, int], seed: int, labels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).random((labels, *size), np.float32)


def batch(*arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))


@settings(max_examples=12)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 9), st.sampled_from([2, 4, 256]))
def test_it_is_the_published_formula_at_any_size(size: tuple[int, int], seed: int, levels: int) -> None:
    """Few grey levels, too, so that pixels have neighbours of one colour: a deviation of 0."""
    picture, scores = picture_of(size, seed, levels), scores_of(size, seed)
    expected = by_hand(picture.astype(np.float64), scores.astype(np.float64), SHORT.iterations)
    found = adapt_scores(batch(picture), batch(scores), SHORT)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_ten_iterations_reach_over_a_larger_picture() -> None:
    """Larger than the largest dilation, so that not every neighbour lies beyond the edge."""
    picture, scores = picture_of((60, 7), 0), scores_of((60, 7), 1)
    expected = by_hand(picture.astype(np.float64), scores.astype(np.float64), 10)
    np.testing.assert_allclose(adapt_scores(batch(picture), batch(scores), TOCO)[0].numpy(), expected, atol=2e-5)


@given(st.integers(1, 90), st.integers(1, 40), st.sampled_from([1, 500, 1000, 2500]), st.integers(1, 12))
@settings(max_examples=12)
def test_blocks_and_neighbours_in_the_batch_change_no_bit(
    height: int, width: int, block_pixels: int, iterations: int
) -> None:
    """The block of one row above is `reach` rows, the largest is the whole picture."""
    preset = replace(TOCO, iterations=iterations)
    pictures = [picture_of((height, width), seed) for seed in range(3)]
    scores = [scores_of((height, width), seed) for seed in range(3)]
    together = adapt_scores(batch(*pictures), batch(*scores), preset, block_pixels)
    for number in range(3):
        alone = adapt_scores(batch(pictures[number]), batch(scores[number]), preset, 10**9)
        assert torch.equal(together[number], alone[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    pictures = torch.from_numpy((picture_of((301, 203), 0) * 255).astype(np.uint8))[None]
    scores = batch(scores_of((301, 203), 1, 3))[:, None]
    expected = pixel_adaptive_scores(pictures, scores, SHORT)
    torch.set_num_threads(threads)
    assert torch.equal(pixel_adaptive_scores(pictures, scores, SHORT), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (11, 14)])
def test_it_is_done_at_half_the_size(size: tuple[int, int]) -> None:
    """As utils/camutils.py of AFA and ToCo does it; where half a side is nothing, one pixel stays."""
    picture = (picture_of(size, 3) * 255).astype(np.uint8)
    sets = torch.from_numpy(np.stack([scores_of(size, seed, 3) for seed in (1, 2)]))
    half = (max(1, size[0] // 2), max(1, size[1] // 2))
    small = functional.interpolate(torch.from_numpy(picture)[None].float() / 255, half, mode="bilinear")
    found = pixel_adaptive_scores(torch.from_numpy(picture)[None], sets[None], SHORT)[0]
    for one, scores in zip(found, sets, strict=True):
        soft = functional.interpolate(scores[None], half, mode="bilinear").softmax(dim=1)
        expected = functional.interpolate(adapt_scores(small, soft, SHORT), size, mode="bilinear")[0]
        assert torch.allclose(one, expected, atol=1e-5)


def test_scores_go_through_a_softmax_of_each_set() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(0, 30, (2, 3, 4, 5, 6)).astype(np.float32))
    assert torch.allclose(probabilities(scores), scores.softmax(dim=2), atol=1e-6)
    assert torch.isfinite(probabilities(torch.full((1, 1, 2, 1, 1), 1e30))).all()


def test_scores_stop_at_a_strong_edge_and_go_on_where_there_is_none() -> None:
    picture = np.zeros((3, 40, 40), np.float32)
    picture[:, :, 20:] = 1
    scores = np.zeros((1, 40, 40), np.float32)
    scores[0, :, :14] = 1
    found = adapt_scores(batch(picture), batch(scores), TOCO)[0, 0].numpy()
    assert found[:, :20].min() > 0.2
    assert found[:, 20:].max() < 0.1
    flat = adapt_scores(batch(np.zeros_like(picture)), batch(scores), TOCO)[0, 0].numpy()
    assert flat[20, 21] > 0.2


@pytest.mark.parametrize(
    ("name", "iterations", "rule"),
    [("toco", 10, (0.25, 0.7)), ("afa", 10, (0.35, 0.55)), ("afa-coco", 15, (0.35, 0.55))],
)
def test_a_preset_has_the_published_parameters(name: str, iterations: int, rule: tuple[float, float]) -> None:
    preset = find_par_preset(name)
    assert (preset.iterations, preset.dilations, preset.scale) == (iterations, (1, 2, 4, 8, 12, 24), 2)
    assert str(preset.background) == f"two:{rule[0]},{rule[1]}"
    assert preset.source


def test_presets_by_name() -> None:
    assert find_par_preset("") is TOCO
    assert find_par_preset(" ToCo ") is TOCO
    assert len({preset.name for preset in PAR_PRESETS}) == len(PAR_PRESETS)
    with pytest.raises(ConfigError, match=r"'afa-voc'.*afa-coco"):
        find_par_preset("afa-voc")
    with pytest.raises(ConfigError, match=r"toco, afa, afa-coco"):
        find_par_preset("?")
