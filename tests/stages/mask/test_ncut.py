"""Normalised cuts: against a dense solver of the same graph, the published loops, and graphs one can cut by hand."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]
from scipy.linalg import eigh  # type: ignore[import-untyped]

from builders.structured_keys import structured_keys
from maskmill.stages.choices import Side
from maskmill.stages.mask.eigenvectors import second_eigenvector
from maskmill.stages.mask.key_graph import WEAK, KeyGraph, key_graph
from maskmill.stages.mask.ncut import (
    LEAST_GAP,
    MEAN,
    GraphCut,
    best_cut,
    cut_by_vector,
    maskcut_maps,
    ncut_map,
    soft_map,
)

REFERENCE = os.environ.get("MASKMILL_REFERENCE")
needs_pictures = pytest.mark.skipif(REFERENCE is None, reason="MASKMILL_REFERENCE names no folder with voc-mini")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the stage has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def graph_of(strong_TT: np.ndarray) -> KeyGraph:
    strong = torch.from_numpy(np.asarray(strong_TT, np.float32))
    return KeyGraph(strong, torch.from_numpy(weights_of(strong).sum(axis=1)))


def weights_of(strong_TT: torch.Tensor) -> np.ndarray:
    return np.where(strong_TT.numpy() > 0, 1.0, WEAK)


def dense(graph: KeyGraph) -> tuple[np.ndarray, np.ndarray]:
    """As the originals have it: (D − A) v = λ D v; the second and third smallest λ, and the second's vector."""
    weights_TT = weights_of(graph.strong_TT)
    degrees_TT = np.diag(weights_TT.sum(axis=1))
    values, vectors = eigh(degrees_TT - weights_TT, degrees_TT, subset_by_index=[1, 2])
    return values, vectors[:, 0]


def blob_keys(seed: int, grid: tuple[int, int], noise: float, width: int = 16) -> torch.Tensor:
    """A background and two rectangles on it, each of a direction of its own, and noise."""
    generator = np.random.default_rng(seed)
    rows, columns = grid
    kinds_RC = np.zeros(grid, int)
    for kind in (1, 2):
        top, left = generator.integers(0, rows), generator.integers(0, columns)
        kinds_RC[top : top + 1 + rows // 3, left : left + 1 + columns // 3] = kind
    directions = generator.normal(size=(3, width))
    keys = directions[kinds_RC.ravel()] + noise * generator.normal(size=(rows * columns, width))
    return torch.from_numpy(keys.astype(np.float32))


def picture_keys(side: int) -> Iterator[tuple[str, torch.Tensor]]:
    assert REFERENCE is not None
    for path in sorted((Path(REFERENCE) / "data/voc-mini").rglob("*.jpg"))[:40:8]:
        with Image.open(path) as picture:
            yield path.stem, torch.from_numpy(structured_keys(np.asarray(picture.convert("RGB")), (side, side)))


def objects(maps: np.ndarray) -> np.ndarray:
    is_object: np.ndarray = maps > MEAN
    return is_object


# ---- the graph and products with it


@pytest.mark.parametrize("num_patches", [1, 3, 511, 513, 1100])
def test_the_graph_is_the_cosines_above_tau(num_patches: int) -> None:
    keys = blob_keys(0, (num_patches, 1), noise=1.0)
    graph = key_graph(keys, 0.15)
    exact = keys.double() / keys.double().norm(dim=1, keepdim=True)
    cosines = exact @ exact.T
    near = (cosines - 0.15).abs() < 1e-6
    assert torch.equal((graph.strong_TT > 0) | near, (cosines > 0.15) | near)
    assert torch.equal(graph.strong_TT, graph.strong_TT.T)
    np.testing.assert_allclose(graph.degree_T, weights_of(graph.strong_TT).sum(axis=1), rtol=1e-14)


def test_keys_painted_out_are_keys_of_zero() -> None:
    keys = blob_keys(1, (12, 10), noise=1.0)
    gone = torch.from_numpy(np.random.default_rng(0).random(120) < 0.3)
    painted = key_graph(keys * ~gone[:, None], 0.15)
    without = key_graph(keys, 0.15).remove_patches(gone)
    assert torch.equal(painted.strong_TT, without.strong_TT)
    assert torch.equal(painted.degree_T, without.degree_T)
    assert not without.strong_TT[gone].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(0, 1), st.integers(-300, 300))
def test_a_product_is_exact_whatever_its_order(seed: int, num_patches: int, share: float, exponent: int) -> None:
    """Bit for bit the same with the patches in another order, and right to float64's digits."""
    generator = np.random.default_rng(seed)
    strong_TT = np.tril(generator.random((num_patches, num_patches)) < share)
    graph = graph_of(strong_TT | strong_TT.T)
    vectors = torch.from_numpy(generator.normal(size=(num_patches, 2)) * 2.0**exponent)
    found = graph.multiply_normalised(vectors)
    weights = torch.from_numpy(weights_of(graph.strong_TT))
    root = graph.degree_T.sqrt()
    wanted = weights / root / root[:, None] @ vectors
    size = vectors.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13 * size)
    turned = torch.from_numpy(generator.permutation(num_patches))
    other = KeyGraph(graph.strong_TT[turned][:, turned].contiguous(), graph.degree_T[turned])
    # Weak edges are a sum of floats, whose order counts: without them nothing does.
    weak = WEAK * (vectors / root[:, None]).sum(dim=0), WEAK * (vectors / root[:, None])[turned].sum(dim=0)
    slack = (weak[0] - weak[1]).abs().max().item() + 1e-15 * size
    torch.testing.assert_close(other.multiply_normalised(vectors[turned]), found[turned], rtol=0, atol=slack)


# ---- the eigenvector


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.floats(0.05, 3), st.floats(0, 0.9))
def test_the_second_eigenvector_is_a_dense_solvers(
    seed: int, rows: int, columns: int, noise: float, tau: float
) -> None:
    graph = key_graph(blob_keys(seed, (rows, columns), noise), tau)
    valid = np.ones((rows, columns), bool)
    if rows * columns < 3:
        assert best_cut(graph, valid, side="largest") is None
        return
    (second, third), vector = dense(graph)
    found = second_eigenvector(graph, LEAST_GAP)
    if third - second < LEAST_GAP - 1e-5:
        assert best_cut(graph, valid, side="largest") is None
    elif third - second > LEAST_GAP + 1e-9:
        assert found.value == pytest.approx(second, abs=1e-12)
        assert found.gap == pytest.approx(third - second, abs=1e-5)
        for side in get_args(Side):
            wanted = cut_by_vector(vector, valid, side)
            cut = best_cut(graph, valid, side)
            assert cut is not None
            np.testing.assert_array_equal(cut.object_RC, wanted.object_RC)


@needs_pictures
@pytest.mark.parametrize("tau", [0.15, 0.5])
def test_pictures_are_cut_as_by_a_dense_solver(tau: float) -> None:
    assert_cut_as_dense(20, tau)


@needs_pictures
@pytest.mark.slow
@pytest.mark.parametrize(("side", "tau"), [(28, 0.2), (28, 0.8), (50, 0.2)])
def test_larger_pictures_are_cut_as_by_a_dense_solver(side: int, tau: float) -> None:
    assert_cut_as_dense(side, tau)


def assert_cut_as_dense(side: int, tau: float) -> None:
    """Masks of the originals' own rule, too: nothing but the sign of the vector is left to rules of this project."""
    valid, compared = np.ones((side, side), bool), 0
    for name, keys in picture_keys(side):
        graph = key_graph(keys, tau)
        (second, third), vector = dense(graph)
        if third - second <= LEAST_GAP:
            continue
        compared += 1
        found = objects(ncut_map(keys, valid, tau))
        np.testing.assert_array_equal(found, cut_by_vector(vector, valid, side="largest").object_RC, name)
        np.testing.assert_array_equal(found, published_object(vector, (side, side)), name)
    assert compared >= 3


def published_object(vector: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """TokenCut's steps from the vector to the mask."""
    bipartition = vector > vector.mean()
    seed = int(np.abs(vector).argmax())
    if not bipartition[seed]:
        bipartition = ~bipartition
    pieces = np.zeros(grid, np.int32)
    ndimage.label(bipartition.reshape(grid), output=pieces)
    mask: np.ndarray = pieces == pieces[np.unravel_index(seed, grid)]
    return mask


def blocks(*sizes: int) -> KeyGraph:
    starts = np.repeat(np.arange(len(sizes)), sizes)
    return graph_of(starts[:, None] == starts)


@pytest.mark.parametrize(
    "graph",
    [blocks(5, 5, 5), blocks(4, 4, 4, 4, 4), blocks(9), blocks(*[1] * 9), graph_of(np.zeros((9, 9)))],
    ids=["three alike", "five alike", "all agree", "none agree", "keys of zero"],
)
def test_eigenvalues_that_are_equal_are_seen(graph: KeyGraph) -> None:
    """Each has a vector of its own, and a search that sees one of them would cut at random."""
    found = second_eigenvector(graph, LEAST_GAP)
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.value == pytest.approx(dense(graph)[0][0], abs=1e-12)
    assert best_cut(graph, np.ones((1, len(graph.degree_T)), bool), side="largest") is None


def test_a_gap_just_above_and_below_the_least() -> None:
    """Three blocks, of which two hang together by more and more edges; a dense solver says how large the gap is."""
    seen = set()
    for edges in range(4):
        strong_TT = blocks(40, 41, 42).strong_TT.numpy()
        strong_TT[0, 45 : 45 + edges] = strong_TT[45 : 45 + edges, 0] = 1
        graph = graph_of(strong_TT)
        second, third = dense(graph)[0]
        is_cut = best_cut(graph, np.ones((1, 123), bool), side="largest") is not None
        assert is_cut == (third - second > LEAST_GAP)
        seen.add(is_cut)
    assert seen == {True, False}


# ---- one object


def test_of_two_blocks_the_smaller_is_the_object() -> None:
    """Its patches have the larger entries, because degrees times entries sum to zero."""
    valid = np.ones((6, 7), bool)
    is_block = np.zeros((6, 7), bool)
    is_block[2:4, 3:6] = True
    keys = torch.where(torch.from_numpy(is_block.ravel())[:, None], torch.tensor([1.0, 0.1]), torch.tensor([-0.1, 1.0]))
    found = ncut_map(keys, valid, 0.2)
    np.testing.assert_array_equal(objects(found), is_block)
    degrees = np.where(is_block, 6 + 36 * WEAK, 36 + 6 * WEAK)
    height = np.where(is_block, 1 / degrees[2, 3] / 6, -1 / degrees[0, 0] / 36)
    height -= height.mean()
    np.testing.assert_allclose(found, 0.5 + height / (2 * np.abs(height).max()), atol=1e-6)


def test_of_the_side_only_what_hangs_together_with_its_largest_entry() -> None:
    """Two pieces that agree, of which the one agrees with the background, too."""
    valid = np.ones((5, 9), bool)
    kinds_RC = np.zeros((5, 9), int)
    kinds_RC[1:3, 1:3], kinds_RC[1:4, 6:8] = 1, 1
    strong_TT = kinds_RC.ravel()[:, None] == kinds_RC.ravel()
    for patch in np.flatnonzero(kinds_RC.ravel())[[0, 1, 5, 6]]:  # the first piece
        strong_TT[patch, 40:44] = strong_TT[40:44, patch] = True
    cut = best_cut(graph_of(strong_TT), valid, side="largest")
    assert cut is not None
    assert (cut.height_RC[1:3, 1:3] > 0).all(), "on the same side"
    wanted = np.zeros((5, 9), bool)
    wanted[1:4, 6:8] = True
    np.testing.assert_array_equal(cut.object_RC, wanted)
    map_RC = soft_map(cut, cut.object_RC)
    np.testing.assert_array_equal(objects(map_RC), wanted)
    assert (map_RC[1:3, 1:3] == MEAN).all()


def test_the_vectors_sign_and_its_ties_are_settled_by_rules() -> None:
    valid = np.ones((1, 5), bool)
    for vector in ([1.0, 0, 0, 0, -1], [-1.0, 0, 0, 0, 1], [1.0, 1e-11, 0, -1e-11, -1 - 1e-11]):
        cut = cut_by_vector(np.array(vector), valid, side="largest")
        np.testing.assert_array_equal(cut.object_RC, [[True, False, False, False, False]])


def test_a_foreground_of_three_corners_gives_way() -> None:
    height_RC = np.full((4, 5), -0.4)
    height_RC[0, 0] = height_RC[0, -1] = height_RC[-1, 0] = 1
    valid = np.ones((4, 5), bool)
    assert cut_by_vector(height_RC.ravel(), valid, side="largest").object_RC.sum() == 1
    turned = cut_by_vector(height_RC.ravel(), valid, side="corners")
    np.testing.assert_array_equal(turned.object_RC, height_RC < 0)
    np.testing.assert_array_equal(cut_by_vector(-height_RC.ravel(), valid, side="corners").object_RC, height_RC < 0)
    height_RC[0, 0] = -0.4
    assert cut_by_vector(height_RC.ravel(), valid, side="corners").object_RC.sum() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(2, 8))
def test_map_and_mean_are_the_cut(seed: int, rows: int, columns: int) -> None:
    """Whatever is kept of the side, float32's rounding included; and all from 0 to 1, with one end reached."""
    generator = np.random.default_rng(seed)
    vector = generator.choice([1, -1, 1e-7, 0.3, -1e-7], rows * columns) + generator.normal(0, 1e-9, rows * columns)
    valid = np.ones((rows, columns), bool)
    if np.ptp(vector) < 1e-3:
        return
    cut = cut_by_vector(vector, valid, side="largest")
    for kept in (cut.object_RC, cut.object_RC & (generator.random(valid.shape) < 0.5)):
        map_RC = soft_map(cut, kept)
        np.testing.assert_array_equal(objects(map_RC), kept)
        assert 0 <= map_RC.min() <= map_RC.max() <= 1
    assert isinstance(cut, GraphCut)


# ---- padding, dtypes, keys that are nothing


@pytest.mark.parametrize("box", [(0, 0, 9, 7), (2, 3, 11, 12), (0, 0, 1, 1), (3, 0, 4, 2)])
def test_padding_is_invisible(box: tuple[int, int, int, int]) -> None:
    """What it holds, and that it is there: the picture alone is cut as the same bits."""
    top, left, bottom, right = box
    valid = np.zeros((11, 12), bool)
    valid[top:bottom, left:right] = True
    size = (bottom - top, right - left)
    inside = blob_keys(4, size, noise=0.5)
    alone = ncut_map(inside, np.ones(size, bool), 0.2), maskcut_maps(inside, np.ones(size, bool), 0.15, 3)
    for around in (0.0, 7.0, np.nan):
        keys = torch.full((11 * 12, 16), around)
        keys[torch.from_numpy(valid.ravel())] = inside
        found = ncut_map(keys, valid, 0.2), maskcut_maps(keys, valid, 0.15, 3)
        for padded, bare in zip(found, alone, strict=True):
            np.testing.assert_array_equal(padded[..., top:bottom, left:right], bare)
            assert not padded[..., ~valid].any()


def test_a_corner_that_is_hardly_picture_is_none() -> None:
    """A patch that two edges of the picture cut is out where its row and column are in: its neighbour is the corner."""
    valid = np.ones((4, 4), bool)
    valid[3, 3] = False
    height = np.where(np.isin(np.arange(15), [0, 3, 14]), 1.0, -0.3)
    assert cut_by_vector(height, valid, side="corners").object_RC.sum() == 12


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_key_that_is_not_finite_makes_no_map(value: float) -> None:
    keys = blob_keys(0, (5, 5), noise=0.1)
    keys[7, 3] = value
    valid = np.ones((5, 5), bool)
    assert np.isnan(ncut_map(keys, valid, 0.2)).all()
    assert np.isnan(maskcut_maps(keys, valid, 0.15, 2)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (6, 5)])
def test_keys_of_zero_have_no_cut(size: tuple[int, int]) -> None:
    keys, valid = torch.zeros(size[0] * size[1], 8), np.ones(size, bool)
    assert not ncut_map(keys, valid, 0.2).any()
    assert not maskcut_maps(keys, valid, 0.15, 3).any()


def test_the_same_map_from_float16() -> None:
    valid = np.ones((12, 12), bool)
    keys = blob_keys(3, (12, 12), noise=0.3)
    np.testing.assert_array_equal(objects(ncut_map(keys, valid, 0.2)), objects(ncut_map(keys.half(), valid, 0.2)))


# ---- several objects


def published_masks(keys: torch.Tensor, grid: tuple[int, int], tau: float, instances: int) -> list[np.ndarray]:
    """MaskCut's loop, step by step; of the vector's two signs the one that points to its largest entry."""
    feats, painting = keys.clone(), np.zeros(grid, bool)
    current = np.zeros(grid, bool)
    stored: list[np.ndarray] = []
    for number in range(instances):
        painting |= current
        feats = feats * torch.from_numpy(~painting.ravel())[:, None]
        (second, third), vector = dense(key_graph(feats, tau))
        assert third - second > LEAST_GAP
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        bipartition = (vector > vector.mean()).reshape(grid)
        if sum(int(bipartition[place]) for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))) >= 3:
            bipartition, seed = ~bipartition, int((-vector).argmax())
        else:
            seed = int(vector.argmax())
        pieces = np.zeros(bipartition.shape, np.int32)
        ndimage.label(bipartition, output=pieces)
        mask = pieces == pieces[np.unravel_index(seed, grid)]
        if number and ((mask & current).sum() / (mask | current).sum() > 0.5 or mask.mean() <= 0.01):
            mask = np.zeros(grid, bool)
        current = mask
        stored.append(mask & ~np.any([np.zeros(grid, bool), *stored], axis=0))
    return stored


@needs_pictures
@pytest.mark.parametrize("side", [20, pytest.param(28, marks=pytest.mark.slow)])
def test_pictures_have_maskcuts_objects(side: int) -> None:
    found_any = 0
    for name, keys in picture_keys(side):
        wanted = published_masks(keys, (side, side), 0.15, 4)
        found = objects(maskcut_maps(keys, np.ones((side, side), bool), 0.15, 4))
        np.testing.assert_array_equal(found, wanted, name)
        found_any += any(mask.any() for mask in wanted[1:])
    assert found_any >= 2


def test_three_objects_are_found_and_a_fourth_is_not() -> None:
    """Each with some background that agrees with it, more for one than for the other: so their eigenvalues differ."""
    kinds_RC = np.zeros((12, 12), int)
    kinds_RC[1:4, 1:4], kinds_RC[5:10, 2:5], kinds_RC[3:9, 7:11] = 1, 2, 3
    keys = torch.eye(4)[torch.from_numpy(kinds_RC.ravel())]
    for start, count, kind in [(143, 1, 1), (9, 3, 2), (132, 8, 3)]:
        keys[start : start + count, kind] += 0.5
    valid = np.ones((12, 12), bool)
    maps = maskcut_maps(keys, valid, 0.15, 6)
    for mask, kind in zip(objects(maps), (1, 2, 3), strict=False):
        np.testing.assert_array_equal(mask, kinds_RC == kind)
    assert not maps[3:].any()
    np.testing.assert_array_equal(maskcut_maps(keys, valid, 0.15, 2), maps[:2])


def test_painted_patches_have_one_height_and_no_object_twice() -> None:
    """They may come to lie on the object's side, as they do in the original, and are then not its patches."""
    for seed in range(8):
        maps = maskcut_maps(blob_keys(seed, (14, 13), noise=0.5), np.ones((14, 13), bool), 0.15, 4)
        assert objects(maps).sum(axis=0).max() <= 1
