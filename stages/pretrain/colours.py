"""Colour distortions of whole batches, a strength per picture. Values are in [0, 1] before and after.

Letters: B pictures, I J pixels, C 3 colours, O output pixels along one axis, S input pixels along it.

They are those of Pillow and torchvision as DINO and MC-SSL use them, without their rounding to 256 levels in between.
On a CPU most of their time goes to fresh memory and to torch.where, so there is little of either.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

PictureBatch = Float32[Tensor, "B 3 I J"]
Strength = Float32[Tensor, " B"]


def change_brightness(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    return (pictures * _per_picture(factor)).clamp_(0, 1)


def change_contrast(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    """Away from the picture's mean grey, or towards it below 1."""
    mean_B111 = grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(mean_B111, pictures, factor)


def change_saturation(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    """Away from each pixel's grey, or towards it below 1."""
    return _blend(grey(pictures), pictures, factor)


def turn_hue(pictures: PictureBatch, turn: Strength) -> PictureBatch:
    """By this share of the colour circle; the value and the saturation of HSV stay."""
    red, green, blue = pictures.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Which colour is the highest, the first of several, as 1 and 0.
    is_red = (value == red).float()
    is_green = (value == green).float().mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    turned = (green - blue).mul_(is_red).add_((blue - red).mul_(is_green)).add_((red - green).mul_(is_blue))
    turned.div_(chroma + (chroma == 0)).add_(is_green.mul_(2).add_(is_blue.mul_(4)))  # the sextant of the hue
    turned.add_(6 * turn[:, None, None])
    found = torch.empty_like(pictures)
    for colour, offset in enumerate((5, 3, 1)):
        # HSV to RGB without cases: a colour falls from the value as the hue leaves it, and is lowest opposite.
        distance = turned + offset
        distance.add_(torch.floor(distance / 6).mul_(-6))
        fall = torch.minimum(distance, 4 - distance).clamp_(0, 1).mul_(chroma)
        torch.sub(value, fall, out=found[:, colour])
    return found


def grey(pictures: PictureBatch) -> Float32[Tensor, "B 1 I J"]:
    """Luma of ITU-R 601, as Pillow's "L"."""
    red, green, blue = pictures.unbind(dim=1)
    return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)[:, None]


def blur_pictures(pictures: PictureBatch, sigma: Strength) -> PictureBatch:
    """By a Gaussian of this deviation in pixels, exact rather than Pillow's three boxes. What lies beyond the border
    has no weight. At sigma 0 the picture stays as it is."""
    weights = (_gaussian(sigma, pictures.shape[2]), _gaussian(sigma, pictures.shape[3]))
    return apply_axis_weights(pictures, *weights)


def solarise_pictures(pictures: PictureBatch) -> PictureBatch:
    """Values from ½ on are inverted."""
    return torch.where(pictures >= 0.5, 1 - pictures, pictures)


def apply_axis_weights(
    pictures: Float32[Tensor, "B 3 rows columns"],
    of_rows: Float32[Tensor, "B I rows"],
    of_columns: Float32[Tensor, "B J columns"],
) -> Float32[Tensor, "B 3 I J"]:
    """Every output pixel a sum of input pixels, along one axis and then the other. In float32 under autocast too;
    where TF32 was switched on, a GPU rounds to about a tenth of a grey level."""
    with torch.autocast(pictures.device.type, enabled=False):
        return torch.einsum("bis,bcsj->bcij", of_rows, torch.einsum("bcst,bjt->bcsj", pictures, of_columns))


def _gaussian(sigma: Strength, side: int) -> Float32[Tensor, "B O S"]:
    at = torch.arange(side, device=sigma.device)
    # Of a smaller deviation the neighbours' weights are 0 too, and the sums give exactly what came in.
    variance_B = sigma.clamp_min(0.05).square()
    by_distance_BS = torch.exp(-at.square() / (2 * variance_B[:, None]))
    by_distance_BS = by_distance_BS.where(by_distance_BS > 1e-9, 0)  # no sum changes, and tiny numbers are slow
    by_step_BS = torch.cat([by_distance_BS.flip(1), by_distance_BS[:, 1:]], dim=1)  # from −side + 1 to side − 1
    weights_BOS = by_step_BS.unfold(1, side, 1).flip(1)
    return weights_BOS / weights_BOS.sum(dim=-1, keepdim=True)


def _blend(dull: Tensor, pictures: PictureBatch, factor: Strength) -> PictureBatch:
    share = _per_picture(factor)
    return (share * pictures).add_((1 - share) * dull).clamp_(0, 1)


def _per_picture(strength: Tensor) -> Tensor:
    return strength[:, None, None, None]
