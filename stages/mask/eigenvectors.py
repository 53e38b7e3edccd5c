"""The vector that cuts a graph in two: the eigenvector of the second smallest λ of (D − A) v = λ D v.

Letters: T patches, B vectors of a block, M vectors of the basis.

The eigenvalues of S = D^-½ A D^-½ are 1 − λ; the largest, 1, belongs to D^½ 1. Block Lanczos with full
reorthogonalisation searches the space orthogonal to D^½ 1. It finds the largest eigenvalues of S first, and about sixty
vectors suffice, where a dense solver reduces the whole matrix.

ARPACK finds the same vectors, but has no blocks. It can miss the second of two equal eigenvalues, which decides here
whether there is a cut. Where eigenvalues crowd together it computes vectors that are not needed to know that a gap is
too small (at 2,500 patches and a gap of 2e-5 it takes four times as long).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .key_graph import KeyGraph

_BLOCK = 4
_SPACING = 3  # blocks between two tests for convergence
_ANGLE = 1e-10  # radians between the vector and its estimate: the residual over the gap
_SURE = 1e-6  # error of the eigenvalues below which they decide whether a gap is too small
_NOTHING = 1e-12  # norm below which a vector lies in the basis


@dataclass(frozen=True, slots=True)
class Eigenvector:
    value: float  # λ: 0 where the graph falls apart, 1 where it cannot be cut
    gap: float  # to the next larger λ; a cut with a small gap means little
    vector_T: Float64[Tensor, " T"]  # of either sign; rough where the gap is below `least_gap`


def second_eigenvector(graph: KeyGraph, least_gap: float) -> Eigenvector:
    """The graph must have three patches or more. As exact as a dense solver where the gap exceeds `least_gap`."""
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
        residual_2 = (coupling_BB @ vectors_MM[-coupling_BB.shape[1] :, [-1, -2]]).norm(dim=0).tolist()
        if _has_converged(first - second, residual_2, least_gap):
            vector_T = basis_TM[:, 1:] @ vectors_MM[:, -1] / root_T
            return Eigenvector(1 - first, first - second, vector_T)


def _has_converged(gap: float, residual_2: list[float], least_gap: float) -> bool:
    """The residual of a vector bounds the error of its eigenvalue."""
    if max(residual_2) > _SURE:
        return False
    return gap < least_gap - 2 * _SURE or residual_2[0] <= _ANGLE * max(gap, least_gap)


def _start_block(num_patches: int) -> Float64[Tensor, "T B"]:
    """The same on every machine: numpy promises that the bits of a generator never change."""
    num_vectors = min(_BLOCK, num_patches - 1)
    bits = np.random.PCG64(0).random_raw(num_patches * num_vectors)
    return torch.from_numpy(bits.reshape(num_patches, num_vectors) / 2.0**64 - 0.5)


def _orthogonalise(vectors_TB: Tensor, basis_TM: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the part of the vectors outside `basis_TM`, and the vectors' coordinates in it. The new
    basis can have fewer vectors, or none if the space is exhausted."""
    new_TB, sizes_B, turned_BB = torch.linalg.svd(_project_out(vectors_TB, basis_TM), full_matrices=False)
    is_new_B = sizes_B > _NOTHING
    # A vector that was nearly in the basis is now mostly rounding error: project again, take the nearest orthonormal.
    left_TB, _, right_BB = torch.linalg.svd(_project_out(new_TB[:, is_new_B], basis_TM), full_matrices=False)
    return left_TB @ right_BB, (sizes_B[:, None] * turned_BB)[is_new_B]


def _project_out(vectors_TB: Tensor, basis_TM: Tensor) -> Tensor:
    for _ in range(2):
        vectors_TB = vectors_TB - basis_TM @ (basis_TM.T @ vectors_TB)
    return vectors_TB


def _append_columns(reduced_MM: Tensor, columns_MB: Tensor) -> Tensor:
    """Appends columns, and their transpose as rows, to a symmetric matrix."""
    before, after = len(reduced_MM), len(columns_MB)
    grown_MM = torch.zeros(after, after, dtype=torch.float64)
    grown_MM[:before, :before] = reduced_MM
    grown_MM[:, before:] = columns_MB
    grown_MM[before:] = columns_MB.T
    return grown_MM
