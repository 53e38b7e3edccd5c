"""Random views of pictures, made on the device: crops of two sizes, flips and colour distortions.

Letters: B pictures, S pixels of a side as stored, O pixels of a side of a view, A tries.

Each picture is resampled by one matrix per axis with Pillow's antialiased bicubic weights of its crop. So a batch of
different crops takes two products, and equals cropping and resizing each picture, up to rounding. grid_sample does not
antialias.

Sources: crops as in torchvision's RandomResizedCrop; order of steps, sizes and strengths as in DINO and MC-SSL
(datasets_utils.py:152-196). Their colour jitter shuffles its four steps per picture, this one per batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from ...manifests.errors import ConfigError
from ..vision.fitting import Colour
from .colours import (
    PictureBatch,
    apply_axis_weights,
    blur_pictures,
    change_brightness,
    change_contrast,
    change_saturation,
    grey,
    solarise_pictures,
    turn_hue,
)
from .draws import Draws, draw_bernoulli, draw_order, draw_shares, draw_uniform, whole_below

_TRIES = 10  # as in torchvision, before the fallback to the largest central crop
Range = tuple[float, float]
RowIndices = Int64[Tensor, " rows"]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strengths:
    """The parameters of one view. Fields without a comment or unit are probabilities."""

    size_px: int
    scale: Range  # the crop's share of the picture's area
    ratio: Range = (3 / 4, 4 / 3)  # the crop's width over its height
    flipped: float = 0.5
    jittered: float = 0.8
    brightness: float = 0.4  # factors from 1 − x to 1 + x, as for contrast and saturation
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1  # share of the colour circle, either way
    grey: float = 0.2
    blurred: float = 0.5
    sigma_px: Range = (0.1, 2.0)  # of the blur, at the size of the view
    solarised: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flipped", "jittered", "grey", "blurred", "solarised", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a value from 0 to 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(
                f"scale is {self.scale} and ratio {self.ratio}; choose rising values above 0, and at most 1 for scale"
            )
        if self.size_px < 1 or not 0 <= self.hue <= 0.5 or not 0 <= self.sigma_px[0] <= self.sigma_px[1]:
            raise ConfigError(
                f"size_px is {self.size_px}, hue {self.hue} and sigma_px {self.sigma_px}; choose size_px from 1, hue "
                "from 0 to 0.5, and rising values from 0 for sigma_px"
            )


FIRST_GLOBAL = Strengths(size_px=224, scale=(0.25, 1.0), blurred=1.0)
SECOND_GLOBAL = Strengths(size_px=224, scale=(0.25, 1.0), blurred=0.1, solarised=0.2)
LOCAL = Strengths(size_px=96, scale=(0.05, 0.25), blurred=0.5)  # MC-SSL has ten


def draw_views(
    pictures: UInt8[Tensor, "B 3 S S"],
    strengths: Sequence[Strengths],
    mean: Colour,
    std: Colour,
    draws: Draws,
) -> list[Float32[Tensor, "B 3 _ _"]]:
    """One normalised view of the batch per entry of `strengths`; depends only on the state of `draws`."""
    shift, width = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (mean, std))
    values = pictures.float().div_(255)
    return [_augment_pictures(values, kind, draws).sub_(shift).div_(width) for kind in strengths]


def draw_view(pictures: UInt8[Tensor, "B 3 S S"], kind: Strengths, draws: Draws) -> Float32[Tensor, "B 3 O O"]:
    """One view with values in [0, 1]."""
    return _augment_pictures(pictures.float().div_(255), kind, draws)


def _augment_pictures(
    pictures: Float32[Tensor, "B 3 S S"], kind: Strengths, draws: Draws
) -> Float32[Tensor, "B 3 O O"]:
    crops = draw_crops(len(pictures), pictures.shape[2], kind, draws, pictures.device)
    return distort_colours(cut_crops(pictures, crops, kind.size_px), kind, draws)


@dataclass(frozen=True, slots=True)
class Crops:
    """What a view shows of each picture."""

    box_B4: Int64[Tensor, "B 4"]  # top, left, rows and columns, in pixels
    is_flipped_B: Bool[Tensor, " B"]  # on the CPU


def draw_crops(batch: int, side: int, kind: Strengths, draws: Draws, device: torch.device) -> Crops:
    box_B4 = draw_boxes(batch, side, kind, draws, device)
    return Crops(box_B4, draw_bernoulli(draws, (batch,), kind.flipped, CPU))


def cut_crops(pictures: Float32[Tensor, "B 3 S S"], crops: Crops, size_px: int) -> Float32[Tensor, "B 3 O O"]:
    side, box_B4 = pictures.shape[2], crops.box_B4
    row_weights = resampling_weights(box_B4[:, 0], box_B4[:, 2], side, size_px)
    column_weights = resampling_weights(box_B4[:, 1], box_B4[:, 3], side, size_px)
    _change_rows(column_weights, crops.is_flipped_B, lambda chosen, _: chosen.flip(1))
    return apply_axis_weights(pictures, row_weights, column_weights).clamp_(0, 1)  # bicubic overshoots


def distort_colours(view: Float32[Tensor, "B 3 O O"], kind: Strengths, draws: Draws) -> Float32[Tensor, "B 3 O O"]:
    """Changes the view in place."""
    batch, device = len(view), view.device
    _jitter_colours(view, kind, draws)
    _change_rows(
        view, draw_bernoulli(draws, (batch,), kind.grey, CPU), lambda chosen, _: grey(chosen).expand_as(chosen)
    )
    sigma_B = draw_uniform(draws, (batch,), *kind.sigma_px, device)
    is_blurred_B = draw_bernoulli(draws, (batch,), kind.blurred, CPU)
    _change_rows(view, is_blurred_B, lambda chosen, rows: blur_pictures(chosen, sigma_B[rows]).clamp_(0, 1))
    is_solarised_B = draw_bernoulli(draws, (batch,), kind.solarised, CPU)
    _change_rows(view, is_solarised_B, lambda chosen, _: solarise_pictures(chosen))
    return view


def draw_boxes(batch: int, side: int, kind: Strengths, draws: Draws, device: torch.device) -> Int64[Tensor, "B 4"]:
    """Top, left, rows and columns of a crop per picture, in pixels: the first of ten tries that fits in the picture, or
    else the largest central crop of an allowed ratio."""
    area_BA = side**2 * draw_uniform(draws, (batch, _TRIES), *kind.scale, device)
    narrowest, widest = map(math.log, kind.ratio)
    ratio_BA = draw_uniform(draws, (batch, _TRIES), narrowest, widest, device).exp()
    sides_BA2 = torch.stack([(area_BA / ratio_BA).sqrt(), (area_BA * ratio_BA).sqrt()], dim=-1).round().long()
    fits_BA = ((sides_BA2 >= 1) & (sides_BA2 <= side)).all(dim=-1)
    first_B = fits_BA.byte().argmax(dim=1)
    drawn_B2 = sides_BA2[torch.arange(batch, device=device), first_B]
    place_B2 = whole_below(draw_shares(draws, (batch, 2), device), side - drawn_B2 + 1)
    nearest = min(max(1.0, kind.ratio[0]), kind.ratio[1])
    largest = torch.tensor([max(1, round(side / max(nearest, 1))), max(1, round(side * min(nearest, 1)))])
    middle = torch.cat([(side - largest) // 2, largest]).to(device)
    return torch.where(fits_BA.any(dim=1, keepdim=True), torch.cat([place_B2, drawn_B2], dim=1), middle)


def resampling_weights(
    start: Int64[Tensor, " B"], length: Int64[Tensor, " B"], side: int, size_px: int
) -> Float32[Tensor, "B O S"]:
    """The weights of a side's pixels in each of the `size_px` output pixels of the crop from start to start + length:
    the bicubic filter (a = −½), widened if the crop shrinks, over pixels of the crop only."""
    shrink_B = length / size_px
    centre_BO = (torch.arange(size_px, device=start.device) + 0.5) * shrink_B[:, None]
    at_BS = torch.arange(side, device=start.device) - start[:, None]
    distance_BOS = (at_BS[:, None, :] + 0.5 - centre_BO[:, :, None]).div_(shrink_B.clamp_min(1)[:, None, None])
    is_within_BS = (at_BS >= 0) & (at_BS < length[:, None])
    weights_BOS = _bicubic(distance_BOS).mul_(is_within_BS[:, None, :])
    return weights_BOS.div_(weights_BOS.sum(dim=-1, keepdim=True))


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' filter with a = −½, as in Pillow and torch's antialiased resizing."""
    x = distance.abs().clamp_max_(2)  # the filter is 0 from 2 on
    near = (1.5 * x).sub_(2.5).mul_(x).mul_(x).add_(1)
    far = (-0.5 * x).add_(2.5).mul_(x).sub_(4).mul_(x).add_(2)
    is_near = (x < 1).float()
    return near.mul_(is_near).add_(far.mul_(1 - is_near))


def _jitter_colours(view: PictureBatch, kind: Strengths, draws: Draws) -> None:
    batch, device = len(view), view.device
    is_jittered_B = draw_bernoulli(draws, (batch,), kind.jittered, CPU)
    steps = (
        (change_brightness, 1.0, kind.brightness),
        (change_contrast, 1.0, kind.contrast),
        (change_saturation, 1.0, kind.saturation),
        (turn_hue, 0.0, kind.hue),
    )
    drawn = []
    for number in draw_order(draws, len(steps)):
        step, middle, reach = steps[number]
        drawn.append((step, draw_uniform(draws, (batch,), middle - reach, middle + reach, device), reach))

    def distort_chosen(chosen: PictureBatch, rows: RowIndices) -> PictureBatch:
        for step, strength_B, reach in drawn:
            chosen = step(chosen, strength_B[rows]) if reach > 0 else chosen
        return chosen

    _change_rows(view, is_jittered_B, distort_chosen)


def _change_rows(values: Tensor, is_chosen: Bool[Tensor, " B"], change: Callable[[Tensor, RowIndices], Tensor]) -> None:
    """Changes only the chosen rows. The choice is on the CPU, so no device is waited for."""
    rows = is_chosen.nonzero()[:, 0].to(values.device)
    if len(rows):
        values[rows] = change(values[rows], rows)
