"""Kept mass against DINO's own lines, and against its definition where patches are equally attended."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from maskmill.stages.maps.kept_mass import attention_map, mass_thresholds

SHARES = st.sampled_from([1e-3, 0.25, 0.5, 0.6, 0.9, 1.0])


def attention_of(batch: int, heads: int, patches: int, seed: int = 0) -> Tensor:
    """As stored: of each head the patches' part of a softmax over patches and prefix."""
    logits = 2 * torch.randn(batch, heads, 1 + patches, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(dim=-1)[:, :, 1:]


def dino_mask(attentions: Tensor, threshold: float) -> Tensor:
    """visualize_attention.py of facebookresearch/dino: [heads, patches] → which are kept."""
    val, idx = torch.sort(attentions)
    val /= torch.sum(val, dim=1, keepdim=True)
    cumval = torch.cumsum(val, dim=1)
    th_attn = cumval > (1 - threshold)
    idx2 = torch.argsort(idx)
    for head in range(attentions.shape[0]):
        th_attn[head] = th_attn[head][idx2[head]]
    return th_attn


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("keep_mass_share", [0.1, 0.37, 0.6, 0.83, 0.99])
@pytest.mark.parametrize("patches", [49, 784])
def test_one_head_is_kept_as_dino_does(patches, keep_mass_share, dtype):
    maps = attention_map(attention_of(8, 1, patches), np.ones((8, patches), bool)).astype(dtype)
    thresholds, is_flat = mass_thresholds(maps, np.ones(maps.shape, bool), keep_mass_share)
    kept = maps > thresholds[:, None]
    published = dino_mask(torch.from_numpy(maps.astype(np.float64)), keep_mass_share).numpy()
    # Equal values are common in float16, and which of them DINO keeps is chance.
    border = np.where(kept, maps, 2).min(axis=1, keepdims=True)
    assert np.array_equal((kept & (maps > border)), (published & (maps > border)))
    assert not (published & ~kept).any()
    assert (kept.sum(axis=1) - published.sum(axis=1) <= (maps == border).sum(axis=1) - 1).all()
    assert not is_flat.any()


@st.composite
def maps_and_valid(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 12)))
    dtype = np.dtype(draw(st.sampled_from(["float16", "float32"])))
    few = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    any_value = st.floats(0, 1, width=16)
    maps = draw(arrays.arrays(dtype, shape, elements=draw(st.sampled_from([few, any_value]))))
    valid = draw(arrays.arrays(bool, shape))
    valid[:, draw(st.integers(0, shape[1] - 1))] = True
    return maps, valid


@given(maps_and_valid(), SHARES)
def test_the_smallest_set_that_holds_the_mass_is_kept(case, keep):
    maps, valid = case
    thresholds, is_flat = mass_thresholds(maps, valid, keep)
    assert thresholds.dtype == np.float32
    for row, inside, threshold, flat in zip(maps, valid, thresholds, is_flat, strict=True):
        values = row[inside].astype(np.float64)
        assert flat == (len(set(values)) == 1)
        kept = values[row[inside] > threshold]
        if flat:
            assert not len(kept)
            continue
        # All values are multiples of 2⁻²⁴, so these sums are exact.
        assert kept.sum() >= keep * values.sum()
        assert kept[kept > kept.min()].sum() < keep * values.sum()
        assert np.array_equal(np.sort(kept), np.sort(values)[len(values) - len(kept) :])
        assert (row[inside].astype(np.float32) > float(threshold)).sum() == len(kept)


@given(maps_and_valid(), SHARES)
def test_what_is_not_valid_is_never_looked_at(case, keep):
    maps, valid = case
    expected = mass_thresholds(maps, valid, keep)
    for bad in (np.nan, np.inf, -1, 1000):
        found = mass_thresholds(np.where(valid, maps, maps.dtype.type(bad)), valid, keep)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_threshold_is_in_the_middle_of_the_gap():
    maps = np.array([[1.0, 0.75, 0.25, 0.125]], np.float32)
    for keep, expected in ((0.4, 0.875), (0.6, 0.5), (0.9, 0.1875), (1.0, 0.0625)):
        thresholds, _ = mass_thresholds(maps, np.ones_like(maps, bool), keep)
        assert thresholds[0] == expected


def test_the_map_is_the_mean_over_heads_with_1_at_the_most_attended():
    attention = attention_of(3, 6, 20)
    valid = np.ones((3, 20), bool)
    valid[1, 10:] = False
    mean = attention.double().mean(dim=1).numpy() * valid
    found = attention_map(attention, valid)
    assert found.dtype == np.float32
    assert np.abs(found - mean / mean.max(axis=1, keepdims=True)).max() < 1e-6
    assert (found.max(axis=1) == 1).all()
    assert (found[1, 10:] == 0).all()
    assert np.abs(attention_map(attention.half(), valid) - found).max() < 2e-3


def test_patches_outside_do_not_reach_the_map():
    attention = attention_of(2, 3, 12)
    valid = np.ones((2, 12), bool)
    valid[:, 8:] = False
    expected = attention_map(attention, valid)
    attention[:, :, 8:] = float("nan")
    attention[1, :, 8:] = 1e6
    assert np.array_equal(attention_map(attention, valid), expected)


def test_no_attention_at_all_is_a_flat_map():
    valid = np.array([[True, True, False]])
    maps = attention_map(torch.tensor([[[0.0, 0.0, 0.5]]]), valid)
    assert maps.tolist() == [[0, 0, 0]]
    thresholds, is_flat = mass_thresholds(maps, valid)
    assert (thresholds[0], is_flat[0]) == (0, True)


def test_float16_holds_the_kept_mass_to_two_thousandths():
    """The map is stored in half floats, and is scaled so that this does no harm."""
    attention, valid = attention_of(16, 6, 3600), np.ones((16, 3600), bool)
    maps = attention_map(attention, valid)
    thresholds, _ = mass_thresholds(maps.astype(np.float16), valid, 0.6)
    exact = attention.double().mean(dim=1).numpy()
    kept = np.where(maps.astype(np.float16) > thresholds[:, None], exact, 0).sum(axis=1) / exact.sum(axis=1)
    assert (abs(kept - 0.6) < 2e-3).all()


def test_what_cannot_be_is_refused():
    ones = np.ones((1, 3), bool)
    for keep in (0.0, 1.5):
        with pytest.raises(AssertionError, match="share to keep"):
            mass_thresholds(np.ones((1, 3), np.float32), ones, keep)
    with pytest.raises(AssertionError, match="never negative"):
        mass_thresholds(np.array([[1, -1, 0]], np.float32), ones)
    with pytest.raises(AssertionError, match="not finite"):
        mass_thresholds(np.array([[1, np.nan, 0]], np.float32), ones)
    with pytest.raises(AssertionError, match="without valid patches"):
        mass_thresholds(np.ones((1, 3), np.float32), ~ones)
