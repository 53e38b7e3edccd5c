"""Normalised cuts against the dense solver of TokenCut and MaskCut: seconds, memory, masks, and how large the gaps are.

Keys are shaped by pictures of voc-mini (tests/builders), or given: a tokens artifact of any backbone. Of a
random backbone's keys nearly all agree or nearly none, which says nothing of a trained one's.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_ncut.py [TOKENS]`
The dense solver has all threads, the iterative one has one, as in a run.
"""

import multiprocessing
import os
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.linalg import eigh  # type: ignore[import-untyped]

from benchmarks.paired import seconds, show
from builders.structured_keys import structured_keys
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.stages.mask.eigenvectors import second_eigenvector
from maskmill.stages.mask.key_graph import WEAK, KeyGraph, key_graph
from maskmill.stages.mask.ncut import LEAST_GAP, MEAN, cut_by_vector, maskcut_maps, ncut_map

TAUS, PICTURES = (0.2, 0.15), 8
SIDES = {28: 5, 50: 3, 60: 3}  # of the grid, and how many pictures a dense solver is given


def some_keys(side: int) -> Iterator[torch.Tensor]:
    folder = Path(os.environ["MASKMILL_REFERENCE"]) / "data/voc-mini/JPEGImages"
    paths = sorted(folder.rglob("*.jpg"))
    for path in paths[:: len(paths) // PICTURES][:PICTURES]:
        with Image.open(path) as picture:
            yield torch.from_numpy(structured_keys(np.asarray(picture.convert("RGB")), (side, side)))


def keys_of(tokens: str) -> tuple[int, list[torch.Tensor]]:
    """Of square views without padding, as `--fit squash` has them."""
    opened = open_tokens(tokens)
    positions = [place for place, row in enumerate(opened.rows.to_pylist()) if row["status"] == "ok"]
    some = positions[:: max(1, len(positions) // PICTURES)][:PICTURES]
    return opened.backbone["grid"][0], [torch.from_numpy(keys) for keys in opened.at("keys", some)]


def dense_vector(keys: torch.Tensor, tau: float) -> np.ndarray:
    """As published, from keys to the vector."""
    exact = torch.nn.functional.normalize(keys.float(), dim=1)
    agrees = (exact @ exact.T).numpy() > tau
    weights = np.where(agrees.astype(float) == 0, WEAK, agrees)
    degrees = np.diag(weights.sum(axis=1))
    vector: np.ndarray = eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0]
    return vector


def iterative_vector(keys: torch.Tensor, tau: float) -> KeyGraph:
    graph = key_graph(keys, tau)
    second_eigenvector(graph, LEAST_GAP)
    return graph


def on(threads: int, function: Callable[[], object]) -> float:
    torch.set_num_threads(threads)
    return seconds(function)


def peak_megabytes(vector_of: Callable[[torch.Tensor, float], object], keys: torch.Tensor) -> float:
    """Of a process of its own, above what it has once its libraries are warm."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (vector_of, keys.numpy()))


def _growth(vector_of: Callable[[torch.Tensor, float], object], keys_TD: np.ndarray) -> float:
    keys = torch.from_numpy(keys_TD)
    vector_of(keys[:64], 0.2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vector_of(keys, 0.2)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(name: str, side: int, keys: list[torch.Tensor], num_dense: int) -> None:
    valid, cores = np.ones((side, side), bool), os.cpu_count() or 1
    for tau in TAUS:
        on(1, lambda: None)
        found = [second_eigenvector(key_graph(each, tau), LEAST_GAP) for each in keys]
        gaps = sorted(each.gap for each in found)
        small = sum(gap <= LEAST_GAP for gap in gaps)
        print(
            f"| {name}, tau {tau:g}: gaps | {gaps[0]:.1e}–{gaps[-1]:.1e}, median {statistics.median(gaps):.1e}; "
            f"{small} of {len(gaps)} below the least |"
        )
    pairs = []
    for each in keys[:num_dense]:
        ours = on(1, partial(iterative_vector, each, 0.2))
        pairs.append((on(cores, partial(dense_vector, each, 0.2)), ours))
    show(f"{name}: ncut, keys to vector", [ours for _, ours in pairs], " s")
    show("… dense, as published", [dense for dense, _ in pairs], " s")
    show("… dense over iterative", [dense / ours for dense, ours in pairs])
    same = sum(
        np.array_equal(
            cut_by_vector(dense_vector(each, 0.2), valid, "largest").object_RC, ncut_map(each, valid, 0.2) > MEAN
        )
        for each in keys[:num_dense]
    )
    print(f"| … the same masks | {same} of {num_dense} |")
    show("… ncut, one picture", [on(1, partial(ncut_map, each, valid, 0.2)) for each in keys], " s")
    show("… maskcut, three objects", [on(1, partial(maskcut_maps, each, valid, 0.15, 3)) for each in keys], " s")


def main(given: list[str]) -> None:
    print(f"| load before | {os.getloadavg()[0]:.1f} |")
    for side in SIDES:
        one = next(some_keys(side))
        megabytes = [peak_megabytes(of, one) for of in (iterative_vector, dense_vector)]
        print(
            f"| {side}×{side}: memory, iterative and dense | {megabytes[0]:.0f} MB, {megabytes[1]:.0f} MB |", flush=True
        )
    for side, num_dense in SIDES.items():
        measure(f"{side}×{side}", side, list(some_keys(side)), num_dense)
    for tokens in given:
        side, keys = keys_of(tokens)
        measure(f"{tokens}, {side}×{side}", side, keys, 3)
    print(f"| load after | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    print("| ncut | measured |\n|---|---|")
    main(sys.argv[1:])
