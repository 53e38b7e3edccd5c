"""The guided filter: in every window, scores become a linear function of the picture's colours.

Letters: B pictures of one size, L score maps, H W pixels.

He, Sun, Tang: Guided Image Filtering (TPAMI 2013), with a colour guide, colours from 0 to 1. Over each window of
(2r + 1)² pixels, cut off at the picture's edge, a = (Σ + εU)⁻¹ cov(I, p) and b = mean(p) − aᵀ mean(I); a pixel's result
is mean(a)ᵀ I + mean(b), both means over its own window. Computed in float64, because means are differences of running
sums. The filter is linear and keeps constants, so thresholds mean the same before and after.
"""

import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from .presets import GuidedPreset

STRIP_PIXELS = 2**19  # filtered together, not counting the rows around them


@torch.inference_mode()
def guided_filter(
    pictures: UInt8[Tensor, "B 3 H W"],
    scores: Float32[Tensor, "B L H W"],
    preset: GuidedPreset,
    strip_pixels: int = STRIP_PIXELS,
) -> Float32[Tensor, "B L H W"]:
    """Filters strip by strip: a row's result needs the rows within twice the radius."""
    radius, (height, width) = preset.radius, pictures.shape[2:]
    rows = max(4 * radius, strip_pixels // width)  # independent of the batch, because sums begin where strips do
    filtered = torch.empty_like(scores)
    for start in range(0, height, rows):
        stop, first = min(start + rows, height), max(0, start - 2 * radius)
        window = slice(first, min(stop + 2 * radius, height))
        guide = _Guide(pictures[..., window, :].double() / 255, preset)
        for label in range(scores.shape[1]):
            strip = guide.filter_scores(scores[:, label, window].double())
            filtered[:, label, start:stop] = strip[:, start - first : stop - first]
    return filtered


class _Guide:
    """The windows of a picture, shared by all score maps."""

    def __init__(self, colours: Float64[Tensor, "B 3 H W"], preset: GuidedPreset) -> None:
        self._colours, self._radius = colours, preset.radius
        self._mean = _box_mean(colours, preset.radius)
        self._factors = self._factor_covariance(preset.eps)

    def _factor_covariance(self, eps: float) -> tuple[Tensor, ...]:
        """The LDLᵀ factors of Σ + εU: three numbers below the diagonal and three on it."""
        (r, g, b), (mean_r, mean_g, mean_b) = self._colours.unbind(1), self._mean.unbind(1)
        rr, gg, bb = (
            self._covariance(x, mean, x, mean).add_(eps) for x, mean in ((r, mean_r), (g, mean_g), (b, mean_b))
        )
        rg, rb = self._covariance(r, mean_r, g, mean_g), self._covariance(r, mean_r, b, mean_b)
        gb = self._covariance(g, mean_g, b, mean_b)
        low_rg, low_rb = rg / rr, rb / rr
        gg -= low_rg * rg
        gb -= low_rb * rg
        low_gb = gb / gg
        bb -= low_rb * rb + low_gb * gb
        return low_rg, low_rb, low_gb, rr, gg, bb

    def _covariance(self, one: Tensor, one_mean: Tensor, other: Tensor, other_mean: Tensor) -> Float64[Tensor, "B H W"]:
        return _box_mean(one * other, self._radius) - one_mean * other_mean

    def filter_scores(self, scores: Float64[Tensor, "B H W"]) -> Float64[Tensor, "B H W"]:
        mean = _box_mean(scores, self._radius)
        slopes = self._solve_slopes(
            [
                self._covariance(colour, colour_mean, scores, mean)
                for colour, colour_mean in zip(self._colours.unbind(1), self._mean.unbind(1), strict=True)
            ]
        )
        offset = mean
        for slope, colour_mean in zip(slopes, self._mean.unbind(1), strict=True):
            offset = offset - slope * colour_mean
        filtered = _box_mean(offset, self._radius)
        for slope, colour in zip(slopes, self._colours.unbind(1), strict=True):
            filtered += _box_mean(slope, self._radius) * colour
        return filtered

    def _solve_slopes(self, right: list[Tensor]) -> list[Tensor]:
        low_rg, low_rb, low_gb, rr, gg, bb = self._factors
        r = right[0]
        g = right[1] - low_rg * r
        b = (right[2] - low_rb * r - low_gb * g) / bb
        g = g / gg - low_gb * b
        return [r / rr - low_rg * g - low_rb * b, g, b]


def _box_mean(values: Float64[Tensor, "*maps H W"], radius: int) -> Float64[Tensor, "*maps H W"]:
    """The mean over the part of each window that lies in the picture."""
    sums = _box_sums(_box_sums(values, radius, -1), radius, -2)
    counts = [_counts(size, radius).to(values.device) for size in values.shape[-2:]]
    return sums.div_(counts[0][:, None]).div_(counts[1])


def _box_sums(values: Float64[Tensor, "*maps H W"], radius: int, dim: int) -> Float64[Tensor, "*maps H W"]:
    """Sums of windows along one axis: the running sum at the window's end minus that before its start."""
    size = values.shape[dim]
    reach, behind = min(radius, size - 1), max(0, size - radius - 1)
    running = values.cumsum(dim)
    at_end = running.narrow(dim, size - 1, 1)
    sums = torch.cat([running.narrow(dim, reach, size - reach), *[at_end] * reach], dim)
    sums.narrow(dim, size - behind, behind).sub_(running.narrow(dim, 0, behind))
    return sums


def _counts(size: int, radius: int) -> Float64[Tensor, " size"]:
    """The number of pixels of each window along an axis."""
    at = torch.arange(size)
    return ((at + radius).clamp(max=size - 1) - (at - radius).clamp(min=0) + 1).double()
