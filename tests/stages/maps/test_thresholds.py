"""Otsu's threshold against every cut tried in turn, in exact arithmetic where values allow it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as arrays
from skimage.filters import threshold_otsu

from maskmill.stages.maps.thresholds import foreground_share, otsu


@st.composite
def maps_and_valid(draw: st.DrawFn, low: float = -8, high: float = 8) -> tuple[np.ndarray, np.ndarray]:
    """Few different values, so that ties are common; each map has a valid patch."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 12)))
    width = draw(st.sampled_from([16, 32]))
    few = st.sampled_from([low, 0.0, 0.125, 0.25, high])
    any_value = st.floats(low, high, width=16).filter(lambda value: value == 0 or abs(value) > 2**-14)
    found = draw(arrays.arrays(np.dtype(f"float{width}"), shape, elements=draw(st.sampled_from([few, any_value]))))
    valid = draw(arrays.arrays(bool, shape))
    valid[:, draw(st.integers(0, shape[1] - 1))] = True
    return found, valid


def between_classes(values: np.ndarray, threshold: float) -> Fraction:
    """Variance between the classes below and above, as defined: shares times squared distance to the mean of all."""
    exact = [Fraction(float(value)) for value in values]
    overall = sum(exact, Fraction()) / len(exact)
    variance = Fraction()
    for side in (True, False):
        some = [value for value in exact if (value > threshold) is side]
        if some:
            variance += Fraction(len(some), len(exact)) * (sum(some, Fraction()) / len(some) - overall) ** 2
    return variance


@given(maps_and_valid())
@example((np.array([[0.5, 0.5, 0.5]], np.float32), np.array([[True, True, False]])))
@example((np.array([[0, 1, 0.5, 9]], np.float16), np.array([[True, True, True, False]])))
def test_otsu_is_the_best_of_all_cuts(case):
    maps, valid = case
    thresholds, is_flat = otsu(maps, valid)
    assert thresholds.dtype == np.float32
    for values, threshold, flat in zip(
        (row[inside] for row, inside in zip(maps, valid, strict=True)), thresholds, is_flat, strict=True
    ):
        assert flat == (len(set(values.tolist())) == 1)
        cuts = sorted(set(values.tolist()))[:-1]
        if flat:
            assert threshold == values[0]
            assert not (values > threshold).any()
            continue
        best = max(between_classes(values, cut) for cut in cuts)
        found = between_classes(values, float(threshold))
        assert float(best - found) <= 1e-12 * float(best)
        assert 0 < (values > threshold).sum() < len(values)


def test_otsu_parts_two_humps_in_the_middle_of_the_gap():
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0.2, 0.4, 600), rng.uniform(0.6, 0.7, 184)
    values = rng.permutation(np.concatenate([low, high]).astype(np.float32))[None]
    thresholds, is_flat = otsu(values, np.ones_like(values, bool))
    assert abs(thresholds[0] - (low.max() + high.min()) / 2) < 1e-6
    assert not is_flat[0]


def test_otsu_is_near_that_of_a_fine_histogram():
    rng = np.random.default_rng(1)
    maps = rng.beta(2, 5, (5, 900)).astype(np.float32)
    thresholds, _ = otsu(maps, np.ones_like(maps, bool))
    for row, threshold in zip(maps, thresholds, strict=True):
        assert abs(threshold - threshold_otsu(row, nbins=100_000)) < 0.01


@pytest.mark.parametrize(("step", "expected"), [(-(2.0**-20), 0.25), (2.0**-20, 0.75)])
def test_sums_over_large_maps_lose_no_digits(step, expected):
    """Three equal groups, the last a little nearer to or farther from the middle one; a float32 sum drops the step."""
    groups = np.array([0, 0.5, 1 + step], np.float32)
    thresholds, _ = otsu(groups.repeat(1200)[None], np.ones((1, 3600), bool))
    assert abs(thresholds[0] - expected) < 1e-5


def test_little_contrast_loses_no_digits():
    """A float64 sum of squares around 1000 would not see steps of 2⁻¹³."""
    steps = np.array([[0, 1, 2, 100, 101, 103]], np.float32)
    thresholds, _ = otsu(np.float32(1000) + steps / 2**13, np.ones_like(steps, bool))
    assert ((np.float32(1000) + steps / 2**13 > thresholds[:, None]) == (steps > 50)).all()


@given(maps_and_valid())
def test_what_is_not_valid_is_never_looked_at(case):
    maps, valid = case
    expected = otsu(maps, valid)
    for bad in (np.nan, np.inf, 1000):
        found = otsu(np.where(valid, maps, maps.dtype.type(bad)), valid)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@given(maps_and_valid())
def test_a_map_knows_nothing_of_other_maps_nor_of_their_order(case):
    maps, valid = case
    together = otsu(maps, valid)
    backwards = otsu(maps[::-1, ::-1], valid[::-1, ::-1])
    for b in range(len(maps)):
        alone = otsu(maps[b : b + 1], valid[b : b + 1])
        for one, all_of_them, reversed_ones in zip(alone, together, backwards, strict=True):
            assert one[0] == all_of_them[b] == reversed_ones[::-1][b]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_next_to_each_other_are_parted(dtype):
    """Where no number lies between, and rounding the middle would reach the upper one."""
    for start in (1, 1.5, 0.3, 7e-8, 3):
        for steps in range(4):
            low = dtype(start)
            for _ in range(steps):
                low = np.nextafter(low, dtype(9))
            both = np.array([[low, np.nextafter(low, dtype(9))]], dtype)
            thresholds, _ = otsu(both, np.ones_like(both, bool))
            threshold = thresholds[0]
            assert (both > threshold).tolist() == [[False, True]]
            assert (both.astype(np.float32) > float(threshold)).tolist() == [[False, True]]
            assert (both > dtype(threshold)).tolist() == [[False, True]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    maps = np.array([[0, 1], [bad, 1]], np.float32)
    with pytest.raises(AssertionError, match="not finite"):
        otsu(maps, np.ones_like(maps, bool))
    with pytest.raises(AssertionError, match="not finite"):
        foreground_share(maps, np.zeros(2, np.float32), np.ones_like(maps, bool))


def test_a_map_without_valid_patches_is_refused():
    with pytest.raises(AssertionError, match="without valid patches"):
        otsu(np.zeros((2, 3), np.float32), np.array([[True, False, False], [False, False, False]]))


def test_foreground_share_counts_valid_patches_strictly_above():
    maps = np.array([[0.1, 0.4, 0.5, 0.9], [0.9, 0.9, 0.9, 0.0]], np.float32)
    valid = np.array([[True, True, True, False], [True, True, True, True]])
    share = foreground_share(maps, np.array([0.4, 0.95], np.float32), valid)
    assert share.tolist() == [1 / 3, 0]
    assert foreground_share(maps.astype(np.float16), np.array([0.2, 0.2], np.float32), valid).tolist() == [2 / 3, 3 / 4]
