"""The vector that cuts a graph in two: of the second smallest eigenvalue of (D − A) v = λ D v.

Letters: T patches, B vectors of a block, M vectors of the basis.

1 − λ are the eigenvalues of S = D^-½ A D^-½, whose largest, 1, belongs to D^½ 1. What is orthogonal to it is searched
by block Lanczos with full reorthogonalisation: the largest eigenvalues of S come first, and a space of some sixty
vectors suffices where a dense solver reduces the whole matrix.

ARPACK finds the same vectors. It has no blocks, so of two equal eigenvalues it need not see the second, which decides
here whether there is a cut at all; and where eigenvalues crowd together it goes on for what is not wanted: one needs no
vector to know that a gap is too small (measured at 2,500 patches and a gap of 2e-5: four times as long).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .key_graph import KeyGraph

_BLOCK = 4
_SPACING = 3  # blocks between two looks at what has been found
_ANGLE = 1e-10  # radians between the vector and what is found of it, by the residual over the gap
_SURE = 1e-6  # eigenvalues that are as near as this say whether a gap is too small
_NOTHING = 1e-12  # what is left of a vector that the basis holds already


@dataclass(frozen=True, slots=True)
class Eigenvector:
    value: float  # λ: 0 where the graph falls apart, 1 where it cannot be cut
    gap: float  # to the next larger λ; a cut means the less, the smaller it is
    vector_T: Float64[Tensor, " T"]  # of either sign; rough where the gap is below `least_gap`


def second_eigenvector(graph: KeyGraph, least_gap: float) -> Eigenvector:
    """Of a graph of three patches or more; found as well as a dense solver does where its gap exceeds `least_gap`."""
    num_patches = len(graph.degree_T)
    assert num_patches >= 3, f"a graph of {num_patches} patches has no gap"
    root_T = graph.degree_T.sqrt()
    basis_TM = (root_T / root_T.norm())[:, None]
    block_TB, _ = _orthogonalise(_start_block(num_patches), basis_TM)
    reduced_MM = torch.zeros(1, 1, dtype=torch.float64)
    steps = 0
    while True:
        steps += 1
        basis_TM = torch.cat([basis_TM, block_TB], dim=1)
        images_TB = graph.multiply_normalised(block_TB)
        reduced_MM = _append_columns(reduced_MM, basis_TM.T @ images_TB)
        block_TB, coupling_BB = _orthogonalise(images_TB, basis_TM)
        if steps % _SPACING and len(coupling_BB):
            continue
        values_M, vectors_MM = torch.linalg.eigh(reduced_MM[1:, 1:])
        first, second = values_M[-1].item(), values_M[-2].item()
        wrong_2 = (coupling_BB @ vectors_MM[-coupling_BB.shape[1] :, [-1, -2]]).norm(dim=0).tolist()
        if _has_converged(first - second, wrong_2, least_gap):
            vector_T = basis_TM[:, 1:] @ vectors_MM[:, -1] / root_T
            return Eigenvector(1 - first, first - second, vector_T)


def _has_converged(gap: float, wrong_2: list[float], least_gap: float) -> bool:
    """An eigenvalue lies no farther from what was found than what is wrong with its vector."""
    if max(wrong_2) > _SURE:
        return False
    return gap < least_gap - 2 * _SURE or wrong_2[0] <= _ANGLE * max(gap, least_gap)


def _start_block(num_patches: int) -> Float64[Tensor, "T B"]:
    """Always the same; numpy promises that the bits of a generator never change."""
    num_vectors = min(_BLOCK, num_patches - 1)
    bits = np.random.PCG64(0).random_raw(num_patches * num_vectors)
    return torch.from_numpy(bits.reshape(num_patches, num_vectors) / 2.0**64 - 0.5)


def _orthogonalise(vectors_TB: Tensor, basis_TM: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of what another one lacks of some vectors, and those vectors by it. It may have fewer than
    they are, or none when nothing is left to find."""
    new_TB, sizes_B, turned_BB = torch.linalg.svd(_project_out(vectors_TB, basis_TM), full_matrices=False)
    is_new_B = sizes_B > _NOTHING
    # Of a vector that was nearly within the basis rounding has left much: once more, and the nearest that are square.
    left_TB, _, right_BB = torch.linalg.svd(_project_out(new_TB[:, is_new_B], basis_TM), full_matrices=False)
    return left_TB @ right_BB, (sizes_B[:, None] * turned_BB)[is_new_B]


def _project_out(vectors_TB: Tensor, basis_TM: Tensor) -> Tensor:
    for _ in range(2):
        vectors_TB = vectors_TB - basis_TM @ (basis_TM.T @ vectors_TB)
    return vectors_TB


def _append_columns(reduced_MM: Tensor, columns_MB: Tensor) -> Tensor:
    """A symmetric matrix grown by its last columns, and by the same as rows."""
    before, after = len(reduced_MM), len(columns_MB)
    grown_MM = torch.zeros(after, after, dtype=torch.float64)
    grown_MM[:before, :before] = reduced_MM
    grown_MM[:, before:] = columns_MB
    grown_MM[before:] = columns_MB.T
    return grown_MM
