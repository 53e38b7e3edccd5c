"""CST's maps: the agreement of patch keys with the class query of a support picture.

Letters: B pictures, K supports, T patches, S patches of a support, D key width (heads one after the other),
H heads, E width of a head, R C rows and columns of patches, I J pixels of a support mask, U V pixels of a query mask.

Source: CST (Kang et al., CVPR 2023), generate_pseudo_mask in the released code.
"""

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn.functional import interpolate, normalize

_EPS = 1e-12  # torch's normalize divides by no smaller length
# Values per block, 2 MB as float32: they stay in the cache while they are read three times.
_BLOCK = 2**19

Size = tuple[int, int]  # rows and columns
QueryTensor = Float32[Tensor, "B H E"] | Float32[Tensor, "H E"]  # one per picture, or one for all of them


def normalise_queries(cls_query: Float[Tensor, "B D"], heads: int) -> Float32[Tensor, "B H E"]:
    """Scales each head's part to length 1; a zero part stays zero."""
    return normalize(cls_query.float().view(len(cls_query), heads, -1), dim=-1, eps=_EPS)


def mean_of_queries(queries: Float32[Tensor, "K H E"]) -> Float32[Tensor, "H E"]:
    """One query for several supports, not normalised again, so that its map is the mean of the supports' maps.

    The mean is this project's own: CST runs one shot at a time.
    """
    return queries.mean(dim=0)


def head_maps(keys: Float[Tensor, "B T D"], queries: QueryTensor) -> Float32[Tensor, "B H T"]:
    """Per head, the cosine of keys and normalised queries, moved from [−1, 1] to [0, 1]; a zero key gives ½.

    A picture's map has the same bits in any batch. NaN in a key affects its patch only.
    """
    return _to_unit_range(_cosines(keys, queries)).transpose(1, 2).contiguous()


def cosine_map(keys: Float[Tensor, "B T D"], queries: QueryTensor) -> Float32[Tensor, "B T"]:
    """The mean of the heads' maps."""
    return _to_unit_range(_cosines(keys, queries).mean(dim=-1))


def pair_masks(
    support_keys: Float[Tensor, "B S D"],
    support_cls_query: Float[Tensor, "B D"],
    query_keys: Float[Tensor, "B T D"],
    is_present: Bool[Tensor, " B"],
    *,
    heads: int,
    grids: tuple[Size, Size],
    support_size: Size,
    query_size: Size,
    threshold: float,
) -> tuple[Bool[Tensor, "B I J"], Bool[Tensor, "B U V"]]:
    """Masks of support and query as published: the support's class query drives both. The query mask is empty if its
    picture does not show the class. `grids` has the support's, then the query's."""
    queries_BHE = normalise_queries(support_cls_query, heads)
    support_BIJ = _cut_masks(support_keys, queries_BHE, grids[0], support_size, threshold)
    query_BUV = _cut_masks(query_keys, queries_BHE, grids[1], query_size, threshold)
    return support_BIJ, query_BUV & is_present[:, None, None]


def support_masks(
    keys: Float[Tensor, "B S D"],
    cls_query: Float[Tensor, "B D"],
    *,
    heads: int,
    grid: Size,
    size: Size,
    threshold: float,
) -> Bool[Tensor, "B I J"]:
    """The support masks of `pair_masks`, which do not depend on the query."""
    return _cut_masks(keys, normalise_queries(cls_query, heads), grid, size, threshold)


def _cut_masks(keys: Tensor, queries: Tensor, grid: Size, size: Size, threshold: float) -> Tensor:
    map_B1RC = cosine_map(keys, queries).view(-1, 1, *grid)
    return interpolate(map_B1RC, size, mode="bilinear", align_corners=True)[:, 0] > threshold


def _to_unit_range(cosine: Tensor) -> Tensor:
    """In place. The clamp removes rounding errors only."""
    return cosine.add_(1).div_(2).clamp_(0, 1)


def _cosines(keys_BTD: Tensor, queries: Tensor) -> Float32[Tensor, "B T H"]:
    """Divides dot products by key lengths, so that no normalised key is written to memory."""
    batch, patches, width = keys_BTD.shape
    heads, head_width = queries.shape[-2:]
    assert width == heads * head_width, f"keys are {width} wide, queries {heads} × {head_width}"
    num_patches = max(1, min(patches, _BLOCK // width))
    num_pictures = max(1, min(batch, _BLOCK // (num_patches * width)))
    # Allocated once: fresh memory per block costs as much as the work.
    exact, product = torch.empty(2, num_pictures, num_patches, heads, head_width, device=keys_BTD.device)
    cosine_BTH = torch.empty(batch, patches, heads, device=keys_BTD.device)
    keys_BTHE = keys_BTD.view(batch, patches, heads, head_width)
    queries_B1HE = queries.expand(batch, heads, head_width)[:, None]
    for first in range(0, batch, num_pictures):
        pictures = slice(first, first + num_pictures)
        for start in range(0, patches, num_patches):
            block_BTHE = keys_BTHE[pictures, start : start + num_patches]
            part = (slice(block_BTHE.shape[0]), slice(block_BTHE.shape[1]))
            exact[part].copy_(block_BTHE)
            torch.mul(exact[part], queries_B1HE[pictures], out=product[part])
            length = torch.linalg.vector_norm(exact[part], dim=-1).clamp_min_(_EPS)
            cosine_BTH[pictures, start : start + num_patches] = product[part].sum(dim=-1).div_(length)
    return cosine_BTH
