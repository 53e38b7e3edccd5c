"""Correlation tokens against the published ones, and against cosines written out in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from maskmill.stages.students.correlation import correlation, head_directions
from maskmill.stages.vision.token_fields import resize_for_support


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(reference):
    with np.load(reference / "golden/cst_correlation.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].ndim}


def test_correlation_is_the_published_one(golden):
    support = golden["support_tokens"].float().flatten(0, 1)
    resized = resize_for_support(support, (9, 9), (4, 4)).unflatten(0, golden["support_tokens"].shape[:2])
    found = correlation(golden["query_tokens"], resized, heads=6)
    assert found.shape == (2, 72, 81, 17)
    assert (found[:, :, ::9] - golden["correlation"]).abs().max() < 1e-6
    blocks_first = found.unflatten(1, (6, 12)).transpose(1, 2).flatten(1, 2)
    assert (blocks_first[:, :, ::9] - golden["correlation"]).abs().max() > 0.1


@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 7), st.booleans())
def test_a_channel_is_the_cosine_in_one_block_and_head(batch, blocks, heads, head_width, patches, is_half):
    query = normal(batch, blocks, 1 + patches, heads * head_width, seed=blocks)
    support = normal(batch, blocks, 5, heads * head_width, seed=heads)
    query, support = (query.half(), support.half()) if is_half else (query, support)
    found = correlation(query, support, heads)
    assert found.dtype == torch.float32
    assert found.shape == (batch, heads * blocks, patches, 5)
    for b, block, head in np.ndindex(batch, blocks, heads):
        part = slice(head * head_width, (head + 1) * head_width)
        of_query = query[b, block, 1:, part].double().numpy()
        of_support = support[b, block, :, part].double().numpy()
        lengths = np.linalg.norm(of_query, axis=1)[:, None] * np.linalg.norm(of_support, axis=1)
        assert np.abs(found[b, head * blocks + block].numpy() - of_query @ of_support.T / lengths).max() < 1e-5


def test_a_part_that_is_zero_agrees_with_nothing():
    query, support = normal(1, 2, 4, 6), normal(1, 2, 3, 6)
    query[0, 1, 2, 3:] = 0
    found = correlation(query, support, heads=2)
    assert (found[0, 3, 1] == 0).all()
    assert (found[0, :3] != 0).all()


def test_heads_that_do_not_divide_a_token_are_refused():
    with pytest.raises(AssertionError, match=r"10.* 3 heads"):
        head_directions(normal(1, 1, 2, 10), heads=3)
