"""CST's maps and masks against the published ones, and against the formula written out in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from maskmill.stages.maps.cst import cosine_map, head_maps, mean_of_queries, normalise_queries, pair_masks

THRESHOLDS = [0.3, 0.35, 0.4, 0.45, 0.5]
HEADS = 6


def stored(keys: np.ndarray) -> Tensor:
    """[B, H, T, E] as keys are stored: heads one after the other."""
    return torch.from_numpy(keys).transpose(1, 2).flatten(2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Any]:
    with np.load(reference / "golden/cst_pseudo_masks.npz") as arrays:
        return dict(arrays)


def as_stored(golden: dict[str, Any]) -> dict[str, Any]:
    return {
        "support_keys": stored(golden["support_keys"]),
        "support_cls_query": torch.from_numpy(golden["support_cls_query"]).flatten(1),
        "query_keys": stored(golden["query_keys"]),
        "is_present": torch.from_numpy(golden["class_present"]),
        "heads": HEADS,
        "grids": ((9, 9), (9, 9)),
        "support_size": (72, 72),
        "query_size": (61, 83),
    }


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_pair_masks_are_the_published_ones(golden, threshold):
    support, query = pair_masks(**as_stored(golden), threshold=threshold)
    index = golden["thresholds"].tolist().index(threshold)
    assert np.array_equal(support.numpy(), golden["support_masks"][index])
    assert np.array_equal(query.numpy(), golden["query_masks"][index])


def cosines_in_float64(keys_HTE: np.ndarray, query_HE: np.ndarray) -> np.ndarray:
    keys, query = keys_HTE.astype(np.float64), query_HE.astype(np.float64)
    dot = (keys * query[:, None]).sum(-1)
    return dot / np.sqrt((keys**2).sum(-1)) / np.sqrt((query**2).sum(-1))[:, None]


def stretched_in_float64(map_RC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel, the first and last on the first and last patch."""
    rows, columns = map_RC.shape
    found = np.empty(size)
    for i, j in np.ndindex(size):
        y, x = i * (rows - 1) / (size[0] - 1), j * (columns - 1) / (size[1] - 1)
        r, c = min(int(y), rows - 2), min(int(x), columns - 2)
        upper = map_RC[r, c] * (c + 1 - x) + map_RC[r, c + 1] * (x - c)
        lower = map_RC[r + 1, c] * (c + 1 - x) + map_RC[r + 1, c + 1] * (x - c)
        found[i, j] = upper * (r + 1 - y) + lower * (y - r)
    return found


@pytest.mark.parametrize(("support_grid", "query_grid"), [((9, 9), (9, 9)), ((5, 7), (8, 3))])
def test_pair_masks_are_the_formula(support_grid, query_grid):
    """The mean over heads of support class query × keys, stretched, (x + 1) / 2 > threshold; empty where absent."""
    support = normal(2, 3, support_grid[0] * support_grid[1], 8, seed=1)
    query = normal(2, 3, query_grid[0] * query_grid[1], 8, seed=2)
    cls_query = normal(2, 3, 8, seed=3)
    is_present = torch.tensor([True, False])
    exact = [
        [
            stretched_in_float64(cosines_in_float64(keys[b].numpy(), cls_query[b].numpy()).mean(0).reshape(grid), size)
            for b in range(2)
        ]
        for keys, grid, size in ((support, support_grid, (20, 31)), (query, query_grid, (17, 12)))
    ]
    shares = [(np.stack(of_both) + 1) / 2 for of_both in exact]
    for threshold in THRESHOLDS:
        masks = pair_masks(
            stored(support.numpy()),
            cls_query.flatten(1),
            stored(query.numpy()),
            is_present,
            heads=3,
            grids=(support_grid, query_grid),
            support_size=(20, 31),
            query_size=(17, 12),
            threshold=threshold,
        )
        for found, share, kept in zip(masks, shares, ([True, True], [True, False]), strict=True):
            clear = abs(share - threshold) > 1e-5
            expected = (share > threshold) & np.array(kept)[:, None, None]
            assert np.array_equal(found.numpy()[clear], expected[clear])
            assert clear.mean() > 0.99


def heads_exchanged(pair: dict[str, Any]) -> dict[str, Any]:
    return pair | {"support_cls_query": pair["support_cls_query"].view(-1, HEADS, 64).flip(1).flatten(1)}


def keys_exchanged(pair: dict[str, Any]) -> dict[str, Any]:
    return pair | {"support_keys": pair["query_keys"], "query_keys": pair["support_keys"]}


def heads_interleaved(pair: dict[str, Any]) -> dict[str, Any]:
    """Channel h of every head, then the next."""
    return pair | {
        name: pair[name].unflatten(-1, (HEADS, 64)).transpose(-1, -2).flatten(-2)
        for name in ("support_cls_query", "support_keys", "query_keys")
    }


def one_head(pair: dict[str, Any]) -> dict[str, Any]:
    """The cosine of whole tokens."""
    return pair | {"heads": 1}


def query_and_key_exchanged(pair: dict[str, Any]) -> dict[str, Any]:
    """The middle patch's key asks, and the class query is one of the patches."""
    support_keys = pair["support_keys"].clone()
    support_keys[:, 40] = pair["support_cls_query"]
    return pair | {"support_keys": support_keys, "support_cls_query": pair["support_keys"][:, 40]}


@pytest.mark.parametrize(
    "variant", [heads_exchanged, keys_exchanged, heads_interleaved, one_head, query_and_key_exchanged]
)
def test_near_misses_are_other_masks(golden, variant: Callable[[dict[str, Any]], dict[str, Any]]):
    """So the published masks would not pass with any of these faults. Heads taken for one differ least: by 0.6 %."""
    index = THRESHOLDS.index(0.4)
    support, query = pair_masks(**variant(as_stored(golden)), threshold=0.4)
    present = golden["class_present"]
    assert (support.numpy() != golden["support_masks"][index]).mean() > 0.002
    assert (query.numpy() != golden["query_masks"][index])[present].mean() > 0.002


def test_exchanged_heads_of_keys_and_query_together_are_the_same_map():
    keys, query = normal(2, 12, 6, 4), normal(2, 6, 4, seed=1)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    straight = head_maps(keys.flatten(2), normalise_queries(query.flatten(1), 6))
    permuted = head_maps(keys[:, :, order].flatten(2), normalise_queries(query[:, order].flatten(1), 6))
    assert torch.equal(permuted, straight[:, order])


@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 6), st.integers(1, 33), st.booleans(), st.booleans())
def test_head_maps_are_the_formula(batch, patches, heads, head_width, is_half, is_shared):
    keys = normal(batch, heads, patches, head_width, seed=patches)
    keys = keys.half() if is_half else keys
    cls_query = normal(batch, heads, head_width, seed=heads)
    queries = normalise_queries(cls_query.flatten(1), heads)
    given_keys = stored(keys.numpy())
    asked = queries[0] if is_shared else queries
    found = head_maps(given_keys, asked)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    for b in range(batch):
        exact = cosines_in_float64(keys[b].numpy(), cls_query[0 if is_shared else b].numpy())
        assert np.abs(found[b].numpy() - (exact + 1) / 2).max() < 1e-5
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert (cosine_map(given_keys, asked) - found.mean(dim=1)).abs().max() < 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_maps_stay_in_range_where_keys_are_the_query(sign):
    query = normal(1, 6, 64).expand(1000, 6, 64) * torch.logspace(-3, 3, 1000)[:, None, None]
    maps = head_maps((sign * query).flatten(1)[:, None], normalise_queries(query.flatten(1), 6))
    assert (maps - (sign + 1) / 2).abs().max() < 1e-6
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1


def test_queries_have_length_1_per_head_or_are_zero():
    cls_query = 100 * normal(3, 4 * 16)
    cls_query[1, 16:32] = 0
    for given_query in (cls_query, cls_query.half()):
        queries = normalise_queries(given_query, 4)
        lengths = queries.norm(dim=-1)
        assert float(lengths[1, 1]) == 0
        lengths[1, 1] = 1
        assert (lengths - 1).abs().max() < 1e-6
        exact = given_query.double().view(3, 4, 16)
        assert (queries * exact.norm(dim=-1, keepdim=True) - exact).abs().max() < 1e-4


def test_zero_keys_and_zero_queries_agree_with_nothing():
    keys, queries = normal(2, 5, 12), normalise_queries(normal(2, 12), 3)
    keys[0, 3] = 0
    queries[1, 2] = 0
    maps = head_maps(keys, queries)
    assert (maps[0, :, 3] == 0.5).all()
    assert (maps[1, 2] == 0.5).all()
    assert (maps[:, :2, :3] != 0.5).all()


@pytest.mark.parametrize("num_supports", [1, 2, 5])
def test_the_map_of_the_mean_query_is_the_mean_of_the_maps(num_supports):
    keys = normal(3, 50, 6 * 16)
    queries = normalise_queries(normal(num_supports, 6 * 16, seed=1), 6)
    of_each = torch.stack([cosine_map(keys, query) for query in queries])
    assert (cosine_map(keys, mean_of_queries(queries)) - of_each.mean(dim=0)).abs().max() < 1e-6


@given(st.integers(1, 5), st.integers(1, 900), st.sampled_from([1, 3, 6]), st.sampled_from([1, 5, 16, 64]))
def test_a_map_knows_nothing_of_other_pictures(batch, patches, heads, head_width):
    keys = normal(batch, patches, heads * head_width, seed=patches)
    queries = normalise_queries(normal(batch, heads * head_width, seed=1), heads)
    together = head_maps(keys, queries)
    for b in range(batch):
        assert torch.equal(head_maps(keys[b : b + 1], queries[b : b + 1])[0], together[b])
        assert torch.equal(head_maps(keys[b : b + 1], queries[b])[0], together[b])


@pytest.mark.parametrize("shape", [(3, 3600, 6), (2, 1500, 12), (300, 49, 6), (9, 784, 6)])
def test_many_and_large_pictures_are_done_in_full(shape):
    """More values than one block holds, so that the blocks' seams are among them."""
    batch, patches, heads = shape
    keys = normal(batch, patches, heads * 64).half()
    queries = normalise_queries(normal(batch, heads * 64, seed=1), heads)
    at_once = torch.nn.functional.normalize(keys.float().view(batch, patches, heads, 64), dim=-1)
    expected = (torch.einsum("bthe,bhe->bt", at_once, queries) / heads + 1) / 2
    assert (cosine_map(keys, queries) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible_and_alone(bad):
    keys, queries = normal(2, 30, 24), normalise_queries(normal(2, 24), 4)
    clean = head_maps(keys, queries)
    keys[1, 7, 13] = bad
    found = head_maps(keys, queries)
    assert found[1, 2, 7].isnan()
    found[1, 2, 7] = clean[1, 2, 7]
    assert torch.equal(found, clean)
    assert cosine_map(keys, queries).isnan().nonzero().tolist() == [[1, 7]]


def test_threads_change_no_bit():
    keys, queries = normal(2, 900, 384).half(), normalise_queries(normal(2, 384), 6)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(cosine_map(keys, queries))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_keys_of_other_heads_are_refused():
    with pytest.raises(AssertionError, match="keys are 24 wide, queries 3 × 4"):
        cosine_map(normal(1, 5, 24), normal(1, 3, 4))
