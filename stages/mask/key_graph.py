"""The graph of a picture's patches: an edge has weight 1 where two keys agree, else 1e-5.

Letters: T patches, D key width (heads one after the other), B vectors.

Source: TokenCut (Wang et al., CVPR 2022), object_discovery.py, and CutLER's maskcut.py, which build the same graph.

The graph is stored as its strong edges, 0 or 1: A = weak + (1 − weak)·strong. Products cut vectors into limbs of few
bits, so that float32 holds a sum over all patches exactly. A product reads half the bytes of float64 and is exact to
float64's digits, so no order of summation and no number of threads changes a bit.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor
from torch.nn.functional import normalize

WEAK = 1e-5  # the weight of an edge between keys that disagree, the sources' eps
_EXACT_BITS = 24  # whole numbers up to 2²⁴ are exact in float32
_BLOCK = 512  # patches whose edges are found at a time


@dataclass(frozen=True, slots=True)
class KeyGraph:
    strong_TT: Float32[Tensor, "T T"]  # 1 where the edge is strong, also a patch's edge to itself; symmetric
    degree_T: Float64[Tensor, " T"]  # the sum of a patch's weights

    def remove_patches(self, gone: Bool[Tensor, " T"]) -> "KeyGraph":
        """Makes all edges of the patches weak, as if their keys were zero: MaskCut builds the same graph from keys that
        it has painted out."""
        strong_TT = self.strong_TT.clone()
        strong_TT[gone] = 0
        strong_TT[:, gone] = 0
        return _graph_from_edges(strong_TT)

    def multiply_normalised(self, vectors: Float64[Tensor, "T B"]) -> Float64[Tensor, "T B"]:
        """D^-½ A D^-½ times vectors, where A are the weights and D the degrees."""
        scale_T1 = self.degree_T.rsqrt()[:, None]
        scaled_TB = scale_T1 * vectors
        return scale_T1 * (WEAK * scaled_TB.sum(dim=0) + (1 - WEAK) * _exact_product(self.strong_TT, scaled_TB))


def key_graph(keys: Float[Tensor, "T D"], tau: float) -> KeyGraph:
    """An edge is strong if the cosine over all heads is above `tau`.

    Both directions use one rounding of the cosine. The originals' matrix can be asymmetric where a cosine is within
    rounding of `tau`; LAPACK then reads its lower triangle.
    """
    keys_TD = normalize(keys.float(), dim=1)
    num_patches = len(keys_TD)
    strong_TT = torch.empty(num_patches, num_patches)
    for start in range(0, num_patches, _BLOCK):
        rows = slice(start, min(start + _BLOCK, num_patches))
        edges = (keys_TD[rows] @ keys_TD[: rows.stop].T > tau).float()
        corner = edges[:, start:]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        strong_TT[rows, : rows.stop] = edges
        strong_TT[: rows.stop, rows] = edges.T
    return _graph_from_edges(strong_TT)


def _graph_from_edges(strong_TT: Tensor) -> KeyGraph:
    num_strong_T = strong_TT.sum(dim=1).double()  # exact in float32; a sum in float64 would copy all edges
    degree_T = WEAK * len(strong_TT) + (1 - WEAK) * num_strong_T
    return KeyGraph(strong_TT, degree_T)


def _exact_product(strong_TT: Tensor, vectors_TB: Tensor) -> Float64[Tensor, "T B"]:
    """Exact to 52 bits below each vector's largest value: a limb is at most 2^(bits − 1), so a sum of T is exact."""
    bits = _EXACT_BITS + 1 - math.ceil(math.log2(len(strong_TT)))
    tiny = torch.finfo(torch.float64).tiny
    unit_B = torch.exp2(vectors_TB.abs().amax(dim=0).clamp_min(tiny).log2().ceil() - (bits - 1))
    rest_TB, limbs = vectors_TB / unit_B, []
    for _ in range(math.ceil(52 / bits)):
        limbs.append(rest_TB.round())
        rest_TB = (rest_TB - limbs[-1]) * 2**bits
    sums = (strong_TT @ torch.cat(limbs, dim=1).float()).double().view(len(strong_TT), len(limbs), -1)
    total_TB = torch.zeros_like(vectors_TB)
    for limb in reversed(range(len(limbs))):
        total_TB = total_TB / 2**bits + sums[:, limb]
    return total_TB * unit_B
