"""Colour distortions of batches with one strength per picture. Values stay in [0, 1].

Letters: B pictures, I J pixels, C 3 colours, O output pixels along one axis, S input pixels along it.

They equal those of Pillow and torchvision as used by DINO and MC-SSL, without intermediate rounding to 256 levels. They
avoid fresh memory and torch.where, which would take most of the time on a CPU.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

PictureBatch = Float32[Tensor, "B 3 I J"]
Strength = Float32[Tensor, " B"]


def change_brightness(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    return (pictures * _per_picture(factor)).clamp_(0, 1)


def change_contrast(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    """Moves pixels away from the picture's mean grey, or towards it for factors below 1."""
    mean_B111 = grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(mean_B111, pictures, factor)


def change_saturation(pictures: PictureBatch, factor: Strength) -> PictureBatch:
    """Moves pixels away from their own grey, or towards it for factors below 1."""
    return _blend(grey(pictures), pictures, factor)


def turn_hue(pictures: PictureBatch, turn: Strength) -> PictureBatch:
    """Turns the hue by this share of the colour circle; HSV's value and saturation stay."""
    red, green, blue = pictures.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # 1 for the highest colour (the first on a tie), else 0.
    is_red = (value == red).float()
    is_green = (value == green).float().mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    turned = (green - blue).mul_(is_red).add_((blue - red).mul_(is_green)).add_((red - green).mul_(is_blue))
    turned.div_(chroma + (chroma == 0)).add_(is_green.mul_(2).add_(is_blue.mul_(4)))  # the sextant of the hue
    turned.add_(6 * turn[:, None, None])
    turned_pictures = torch.empty_like(pictures)
    for colour, offset in enumerate((5, 3, 1)):
        # HSV to RGB without branches: a colour falls from the value as the hue moves away from it.
        distance = turned + offset
        distance.add_(torch.floor(distance / 6).mul_(-6))
        fall = torch.minimum(distance, 4 - distance).clamp_(0, 1).mul_(chroma)
        torch.sub(value, fall, out=turned_pictures[:, colour])
    return turned_pictures


def grey(pictures: PictureBatch) -> Float32[Tensor, "B 1 I J"]:
    """ITU-R 601 luma, Pillow's "L"."""
    red, green, blue = pictures.unbind(dim=1)
    return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)[:, None]


def blur_pictures(pictures: PictureBatch, sigma: Strength) -> PictureBatch:
    """Blurs with an exact Gaussian of this deviation in pixels (Pillow uses three boxes). Pixels beyond the border have
    no weight; sigma 0 changes nothing."""
    weights = (_gaussian(sigma, pictures.shape[2]), _gaussian(sigma, pictures.shape[3]))
    return apply_axis_weights(pictures, *weights)


def solarise_pictures(pictures: PictureBatch) -> PictureBatch:
    """Inverts values from ½ upwards."""
    return torch.where(pictures >= 0.5, 1 - pictures, pictures)


def apply_axis_weights(
    pictures: Float32[Tensor, "B 3 rows columns"],
    row_weights: Float32[Tensor, "B I rows"],
    column_weights: Float32[Tensor, "B J columns"],
) -> Float32[Tensor, "B 3 I J"]:
    """Weighted sums of pixels along one axis, then the other. In float32 even under autocast; with TF32 enabled, a GPU
    rounds to about a tenth of a grey level."""
    with torch.autocast(pictures.device.type, enabled=False):
        return torch.einsum("bis,bcsj->bcij", row_weights, torch.einsum("bcst,bjt->bcsj", pictures, column_weights))


def _gaussian(sigma: Strength, side: int) -> Float32[Tensor, "B O S"]:
    at = torch.arange(side, device=sigma.device)
    # Below 0.05 the neighbours' weights are 0 as well, and the picture is unchanged.
    variance_B = sigma.clamp_min(0.05).square()
    by_distance_BS = torch.exp(-at.square() / (2 * variance_B[:, None]))
    by_distance_BS = by_distance_BS.where(by_distance_BS > 1e-9, 0)  # changes no sum, and tiny numbers are slow
    by_step_BS = torch.cat([by_distance_BS.flip(1), by_distance_BS[:, 1:]], dim=1)  # from −side + 1 to side − 1
    weights_BOS = by_step_BS.unfold(1, side, 1).flip(1)
    return weights_BOS / weights_BOS.sum(dim=-1, keepdim=True)


def _blend(dull: Tensor, pictures: PictureBatch, factor: Strength) -> PictureBatch:
    share = _per_picture(factor)
    return (share * pictures).add_((1 - share) * dull).clamp_(0, 1)


def _per_picture(strength: Tensor) -> Tensor:
    return strength[:, None, None, None]
