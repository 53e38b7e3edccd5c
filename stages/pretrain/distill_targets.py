"""Where a student's patches lie in another backbone's stored grid of tokens, and the tokens there.

Letters: B pictures, N patches of the student along one axis, G patches of the teacher along it, T patches of the
student, M its class token and patches, R C rows and columns of the teacher's grid, D width of a teacher's token.

A student sees a crop of a stored picture; the teacher saw the whole picture. Both places are measured as shares of the
picture: 0 is its upper or left edge, 1 its lower or right edge. So pictures and tokens may be fitted to their views in
different ways. Tokens are taken as linear in position between the centres of the teacher's patches, and up to half a
patch beyond the outermost of them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

# Along rows and along columns, as shares of the picture.
Places = tuple[Float32[Tensor, "B N"], Float32[Tensor, "B N2"]]
_EDGE = 1e-6  # rounding of a place at the edge of the picture


@dataclass(frozen=True, slots=True)
class TeacherGrid:
    """The teacher's patches in its own view."""

    grid: tuple[int, int]  # rows and columns of patches
    patch: tuple[int, int]  # rows and columns of pixels of a patch


def crop_places(
    crop_B4: Int64[Tensor, "B 4"],
    box_B4: Int64[Tensor, "B 4"],
    is_flipped_B: Bool[Tensor, " B"],
    grid: tuple[int, int],
) -> Places:
    """The centres of the student's patches, as shares of the picture, or of its mirror image where the crop is flipped.
    A crop is top, left, rows and columns, and the picture's box top, left, bottom, right, all in pixels as stored."""
    rows_BN = _patch_places(crop_B4[:, 0], crop_B4[:, 2], box_B4[:, 0], box_B4[:, 2], grid[0])
    columns_BN = _patch_places(crop_B4[:, 1], crop_B4[:, 3], box_B4[:, 1], box_B4[:, 3], grid[1])
    return rows_BN, torch.where(is_flipped_B[:, None], 1 - columns_BN.flip(1), columns_BN)


def _patch_places(
    start_B: Tensor, length_B: Tensor, first_B: Tensor, last_B: Tensor, count: int
) -> Float32[Tensor, "B N"]:
    """The centres of `count` patches along one axis of a crop from `start` to `start + length`, where the picture lies
    from `first` to `last`."""
    centre_N = (torch.arange(count, device=start_B.device) + 0.5) / count
    pixel_BN = start_B[:, None] + centre_N * length_B[:, None]
    return (pixel_BN - first_B[:, None]) / (last_B - first_B)[:, None]


def grid_weights(
    place_BN: Float32[Tensor, "B N"], first_B: Tensor, last_B: Tensor, patch_px: int, count: int
) -> Float32[Tensor, "B N G"]:
    """The weights of the teacher's patches along one axis at each place: linear between two neighbours, and beyond the
    outermost ones from the last two. Only patches whose centre shows the picture, from pixel `first` to `last` of the
    view, have weight; if there is none, the nearest one has."""
    at_BN = (first_B[:, None] + place_BN * (last_B - first_B)[:, None]) / patch_px - 0.5
    lowest_B = torch.ceil(first_B / patch_px - 0.5).long().clamp(0, count - 1)
    highest_B = (torch.ceil(last_B / patch_px - 0.5).long() - 1).clamp(0, count - 1)
    highest_B = torch.maximum(highest_B, lowest_B)
    lower_BN = torch.minimum(at_BN.floor().long(), highest_B[:, None] - 1)
    lower_BN = torch.maximum(lower_BN, lowest_B[:, None])
    share_BN = (at_BN - lower_BN) * (highest_B > lowest_B)[:, None]
    upper_BN = (lower_BN + 1).clamp_max(count - 1)
    weights_BNG = torch.zeros(*place_BN.shape, count, device=place_BN.device)
    weights_BNG.scatter_add_(2, lower_BN[..., None], (1 - share_BN)[..., None])
    return weights_BNG.scatter_add_(2, upper_BN[..., None], share_BN[..., None])


def match_tokens(
    tokens_BMD: Float[Tensor, "B _ D"],
    box_B4: Int64[Tensor, "B 4"],
    teacher: TeacherGrid,
    places: Places,
) -> Float32[Tensor, "B M D"]:
    """The class token as it is, and the teacher's tokens at the student's patches, row by row. `box` is that of the
    picture in the teacher's view: top, left, bottom, right."""
    rows, columns = teacher.grid
    box = box_B4.float()
    row_weights = grid_weights(places[0], box[:, 0], box[:, 2], teacher.patch[0], rows)
    column_weights = grid_weights(places[1], box[:, 1], box[:, 3], teacher.patch[1], columns)
    values_BMD = tokens_BMD.float()
    grid_BRCD = values_BMD[:, 1:].reshape(len(values_BMD), rows, columns, -1)
    matched = torch.einsum("bmc,brcd->brmd", column_weights, grid_BRCD)
    patches_BTD = torch.einsum("bnr,brmd->bnmd", row_weights, matched).flatten(1, 2)
    return torch.cat([values_BMD[:, :1], patches_BTD], dim=1)


def shows_picture(places: Places) -> Bool[Tensor, "B T"]:
    """The student's patches whose centre lies in the picture rather than in its padding."""
    is_inside = [(place_BN >= -_EDGE) & (place_BN <= 1 + _EDGE) for place_BN in places]
    return (is_inside[0][:, :, None] & is_inside[1][:, None, :]).flatten(1)
