import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as arrays

from maskmill.manifests.artifact.quantized import dequantize, quantize

TOKENS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(TOKENS)
@example(np.zeros((2, 3), np.float32))
@example(np.full((1, 4), -5.0, np.float32))
@example(np.array([[1e-40, -1e-42, 0]], np.float32))
@example(np.array([[3e38, -3.4e38]], np.float32))
def test_what_is_restored_is_within_half_a_scale(values):
    small, scale = quantize(values)
    assert small.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == values.shape[:-1]
    assert small.min() >= -127  # −128 is the fill
    error = np.abs(dequantize(small, scale).astype(np.float64) - values)
    smallest = 127 * float(np.finfo(np.float32).tiny)  # tokens below are zero
    assert (error <= 0.5 * scale.astype(np.float64)[..., None] * (1 + 1e-4) + smallest).all()


@given(TOKENS)
def test_sign_is_symmetric_and_the_largest_is_full(values):
    small, scale = quantize(values)
    mirrored, same = quantize(-values)
    assert np.array_equal(mirrored, -small)
    assert np.array_equal(same, scale)
    assert (np.abs(small).max(axis=-1)[scale > 0] == 127).all()


@given(TOKENS)
def test_one_token_knows_nothing_of_the_others(values):
    flat = values.reshape(-1, values.shape[-1])
    small, scale = quantize(flat)
    for row in range(len(flat)):
        alone, own = quantize(flat[row])
        assert np.array_equal(alone, small[row])
        assert own == scale[row]


def test_half_floats_are_taken_too():
    values = np.random.default_rng(0).normal(size=(4, 384)).astype(np.float16)
    small, scale = quantize(values)
    cosine = (dequantize(small, scale) * values).sum(-1) / np.linalg.norm(values.astype(np.float32), axis=-1)
    assert (cosine / np.linalg.norm(dequantize(small, scale), axis=-1) > 0.9998).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_hidden(bad):
    with pytest.raises(AssertionError, match="not finite"):
        quantize(np.array([[1, bad]], np.float32))
