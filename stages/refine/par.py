"""Pixel-adaptive refinement (PAR): each pixel repeatedly takes on the scores of similar pixels near it.

Letters: B pictures of one size, S sets of scores (one per background score), L labels, H W pixels.

As published by AFA (github.com/rulixiang/afa, wetr/PAR.py and utils/camutils.py) and used by ToCo: colours from 0 to 1
and a softmax of the scores, both at half size; eight neighbours at each dilation, with edge pixels repeated; per
channel and pixel, differences over w1 times the standard deviation of the 48 neighbours; a softmax of the negated mean
square, plus w2 times the softmax of the distances. The weights of a pixel sum to 1 + w2, which changes no comparison of
its labels. This project's own: a side of one pixel stays one pixel, and a tie is 255.

The code uses only operations whose result at a pixel does not depend on the pixel's place in memory, so bytes depend
neither on the batch nor on the number of threads. torch's softmax, interpolate and sums over an axis do not qualify.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional

from .presets import ParPreset

W1, W2, TINY = 0.3, 0.01, 1e-8
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
CPU_BLOCK, GPU_BLOCK = 2**15, 2**20  # pixels whose 48 weights are computed together


@torch.inference_mode()
def pixel_adaptive_scores(
    pictures: UInt8[Tensor, "B 3 H W"], scores: Float32[Tensor, "B S L H W"], preset: ParPreset
) -> Float32[Tensor, "B S L H W"]:
    """The refined scores at the size of the picture."""
    batch, sets, labels, height, width = scores.shape
    smaller = (max(1, height // preset.scale), max(1, width // preset.scale))
    channels = [_resize_maps(channel / 255, smaller) for channel in pictures.chunk(3, dim=1)]  # one float at full size
    small = _resize_maps(scores.flatten(1, 2), smaller).view(batch, sets, labels, *smaller)
    refined = adapt_scores(torch.cat(channels, dim=1), probabilities(small).flatten(1, 2), preset)
    return _resize_maps(refined, (height, width)).view(scores.shape)


def probabilities(scores: Float32[Tensor, "B S L H W"]) -> Float32[Tensor, "B S L H W"]:
    """A softmax over the labels."""
    return _softmax_in_place(scores.clone(), dim=2)


def adapt_scores(
    pictures: Float32[Tensor, "B 3 H W"],
    scores: Float32[Tensor, "B maps H W"],
    preset: ParPreset,
    block_pixels: int = 0,
) -> Float32[Tensor, "B maps H W"]:
    """Runs the iterations at the given size. The block size depends on the device and changes no value.

    A picture is refined in blocks of rows. Iteration k of a block follows iteration k − 1 of the block below it, so
    only as many blocks as iterations hold weights, and nothing is computed twice.
    """
    reach, (batch, _, height, width) = max(preset.dilations), pictures.shape
    block_pixels = block_pixels or (CPU_BLOCK if pictures.device.type == "cpu" else GPU_BLOCK)
    rows = max(reach, block_pixels // (batch * width))
    blocks = [slice(start, min(start + rows, height)) for start in range(0, height, rows)]
    refined, weights = scores.clone(), dict[int, Tensor]()
    above = [refined[..., :0, :]] * preset.iterations  # per iteration, the previous block before that iteration
    for step in range(len(blocks) + preset.iterations - 1):
        if step < len(blocks):
            weights[step] = _weights(_widen_block(pictures, blocks[step], reach), preset)
        for iteration in range(preset.iterations):
            number = step - iteration
            if 0 <= number < len(blocks):
                block = refined[..., blocks[number], :].clone()
                below = refined[..., blocks[number].stop : blocks[number].stop + reach, :]
                window = _pad_edges(above[iteration], block, below, reach)
                refined[..., blocks[number], :] = _weighted_sum(window, weights[number], preset)
                above[iteration] = block
        weights.pop(step - preset.iterations + 1, None)
    return refined


def _weights(window: Float32[Tensor, "B 3 rows columns"], preset: ParPreset) -> Float32[Tensor, "B neighbours H W"]:
    """The weight of each neighbour, for the pixels whose neighbours all lie in the window."""
    reach = max(preset.dilations)
    own = window[..., reach:-reach, reach:-reach]
    count = len(AROUND) * len(preset.dilations)
    mean, square = torch.zeros_like(own), torch.zeros_like(own)
    for neighbour in _neighbours(window, preset):
        mean += neighbour
    mean /= count
    for neighbour in _neighbours(window, preset):
        square += (neighbour - mean).square_()
    scale = (square / (count - 1)).sqrt_().add_(TINY).mul_(W1).reciprocal_()
    unlike = own.new_empty((own.shape[0], count, *own.shape[2:]))
    for number, neighbour in enumerate(_neighbours(window, preset)):
        red, green, blue = ((neighbour - own) * scale).square_().unbind(1)
        unlike[:, number] = (red + green + blue) / -3
    return _softmax_in_place(unlike, dim=1).add_(_position_weights(preset).to(own.device)[:, None, None])


def _position_weights(preset: ParPreset) -> Float32[Tensor, " neighbours"]:
    """Computed on the CPU for all devices."""
    steps = torch.tensor([(row * row + column * column) ** 0.5 for row, column in AROUND])
    distances = torch.cat([steps * dilation for dilation in preset.dilations])
    far = -(distances / (distances.std() + TINY) / W1).square()
    return W2 * torch.softmax(far, dim=0)


def _softmax_in_place(values: Float32[Tensor, "..."], dim: int) -> Float32[Tensor, "..."]:
    values.sub_(values.amax(dim, keepdim=True)).exp_()
    total = torch.zeros_like(values.select(dim, 0))
    for number in range(values.shape[dim]):
        total += values.select(dim, number)
    return values.div_(total.unsqueeze(dim))


def _weighted_sum(
    window: Float32[Tensor, "B maps rows columns"], weights: Float32[Tensor, "B neighbours H W"], preset: ParPreset
) -> Float32[Tensor, "B maps H W"]:
    """Product and sum are two steps, because a fused step rounds differently on different devices."""
    total = window.new_zeros((*window.shape[:2], *weights.shape[2:]))
    product = torch.empty_like(total)
    for number, neighbour in enumerate(_neighbours(window, preset)):
        torch.mul(neighbour, weights[:, None, number], out=product)
        total += product
    return total


def _neighbours(window: Float32[Tensor, "B maps rows columns"], preset: ParPreset) -> Iterator[Tensor]:
    """Views of the window; each holds one neighbour of every pixel."""
    reach = max(preset.dilations)
    height, width = window.shape[-2] - 2 * reach, window.shape[-1] - 2 * reach
    for dilation in preset.dilations:
        for row, column in AROUND:
            top, left = reach + row * dilation, reach + column * dilation
            yield window[..., top : top + height, left : left + width]


def _widen_block(
    maps: Float32[Tensor, "B maps H W"], block: slice, reach: int
) -> Float32[Tensor, "B maps rows columns"]:
    """A block of rows with the pixels around it."""
    above, below = maps[..., max(0, block.start - reach) : block.start, :], maps[..., block.stop :, :]
    return _pad_edges(above, maps[..., block, :], below[..., :reach, :], reach)


def _pad_edges(
    above: Float32[Tensor, "B maps R1 W"],
    block: Float32[Tensor, "B maps R2 W"],
    below: Float32[Tensor, "B maps R3 W"],
    reach: int,
) -> Float32[Tensor, "B maps rows columns"]:
    """Adds `reach` pixels on every side; beyond the picture, its edge pixels are repeated."""
    near = torch.cat([above[..., -reach:, :], block, below], dim=-2)
    missing_above, missing_below = reach - min(reach, above.shape[-2]), reach - below.shape[-2]
    return functional.pad(near, (reach, reach, missing_above, missing_below), mode="replicate")


def _resize_maps(maps: Float32[Tensor, "B maps H W"], size: tuple[int, int]) -> Float32[Tensor, "B maps rows columns"]:
    """Bilinear by pixel centres, like torch's interpolate, whose rounding depends on the number of threads."""
    for dim, length in zip((-2, -1), size, strict=True):
        before = maps.shape[dim]
        at = (((torch.arange(length).double() + 0.5) * before / length) - 0.5).clamp(0, before - 1)
        low = at.long()
        share = (at - low).float().to(maps.device)
        share = share[:, None] if dim == -2 else share
        upper = maps.index_select(dim, (low + 1).clamp(max=before - 1).to(maps.device)).mul_(share)
        maps = maps.index_select(dim, low.to(maps.device)).mul_(1 - share).add_(upper)
    return maps
