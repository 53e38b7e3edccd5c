"""Pixel-adaptive refinement (PAR): each pixel takes on the scores of pixels near it that look like it, again and again.

Letters: B pictures of one size, S sets of scores (one per background score), L labels, H W pixels.

As AFA published it (github.com/rulixiang/afa, wetr/PAR.py and utils/camutils.py) and ToCo uses it: colours from 0 to 1,
scores through a softmax, both at half the size; eight neighbours at each dilation, beyond the edge the pixel at the
edge; per channel and pixel, differences over w1 times the standard deviation of the 48 neighbours; a softmax over them
of the negated mean square, and w2 times that of their distances. The weights of a pixel sum to 1 + w2, which changes no
comparison of its labels. This project's own: a side of one pixel stays one pixel, and a tie is 255.

Only operations whose value at a pixel does not depend on where the pixel lies in memory are used, so that bytes depend
neither on the batch nor on the number of threads: torch's own softmax, interpolate and sums over an axis are not of
that kind.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional

from .presets import ParPreset

W1, W2, TINY = 0.3, 0.01, 1e-8
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
# Pixels whose 48 weights are computed together; there are as many such blocks as iterations, or one for the whole.
CPU_BLOCK, GPU_BLOCK = 2**15, 2**20


@torch.inference_mode()
def pixel_adaptive_scores(
    pictures: UInt8[Tensor, "B 3 H W"], scores: Float32[Tensor, "B S L H W"], preset: ParPreset
) -> Float32[Tensor, "B S L H W"]:
    """The refined scores, at the size of the picture again."""
    batch, sets, labels, height, width = scores.shape
    smaller = (max(1, height // preset.scale), max(1, width // preset.scale))
    channels = [
        _resize_maps(pictures[:, each : each + 1] / 255, smaller) for each in range(3)
    ]  # one in memory at full size
    small = _resize_maps(scores.flatten(1, 2), smaller).view(batch, sets, labels, *smaller)
    refined = adapt_scores(torch.cat(channels, dim=1), probabilities(small).flatten(1, 2), preset)
    return _resize_maps(refined, (height, width)).view(scores.shape)


def probabilities(scores: Float32[Tensor, "B S L H W"]) -> Float32[Tensor, "B S L H W"]:
    """A softmax over the labels."""
    powers = (scores - scores.amax(dim=2, keepdim=True)).exp_()
    total = powers[:, :, :1].clone()
    for label in range(1, powers.shape[2]):
        total += powers[:, :, label : label + 1]
    return powers / total


def adapt_scores(
    pictures: Float32[Tensor, "B 3 H W"],
    scores: Float32[Tensor, "B maps H W"],
    preset: ParPreset,
    block_pixels: int = 0,
) -> Float32[Tensor, "B maps H W"]:
    """The iterations, at the size that is given. The size of blocks, which changes no value, follows the device.

    A picture is done in blocks of rows. Iteration k of a block follows iteration k − 1 of the block below it, so that
    weights are held only of as many blocks as there are iterations, and nothing is computed twice.
    """
    reach, (batch, _, height, width) = max(preset.dilations), pictures.shape
    block_pixels = block_pixels or (CPU_BLOCK if pictures.device.type == "cpu" else GPU_BLOCK)
    rows = max(reach, block_pixels // (batch * width))
    blocks = [slice(start, min(start + rows, height)) for start in range(0, height, rows)]
    refined, weights = scores.clone(), dict[int, Tensor]()
    above = [refined[..., :0, :]] * preset.iterations  # of each iteration: the block before as that iteration found it
    for step in range(len(blocks) + preset.iterations - 1):
        if step < len(blocks):
            weights[step] = _weights(_widen_block(pictures, blocks[step], reach), preset)
        for iteration in range(preset.iterations):
            number = step - iteration
            if 0 <= number < len(blocks):
                found = refined[..., blocks[number], :].clone()
                below = refined[..., blocks[number].stop : blocks[number].stop + reach, :]
                window = _pad_edges(above[iteration], found, below, reach)
                refined[..., blocks[number], :] = _weighted_sum(window, weights[number], preset)
                above[iteration] = found
        weights.pop(step - preset.iterations + 1, None)
    return refined


def _weights(window: Float32[Tensor, "B 3 rows columns"], preset: ParPreset) -> Float32[Tensor, "B neighbours H W"]:
    """Of every neighbour of every pixel that has all of them in the window."""
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
    _softmax_over_neighbours(unlike)
    return unlike.add_(_position_weights(preset).to(own.device)[:, None, None])


def _position_weights(preset: ParPreset) -> Float32[Tensor, " neighbours"]:
    """On the CPU, for all devices."""
    steps = torch.tensor([(row * row + column * column) ** 0.5 for row, column in AROUND])
    distances = torch.cat([steps * dilation for dilation in preset.dilations])
    far = -(distances / (distances.std() + TINY) / W1).square()
    return W2 * torch.softmax(far, dim=0)


def _softmax_over_neighbours(values: Float32[Tensor, "B neighbours H W"]) -> None:
    """In place."""
    values -= values.amax(dim=1, keepdim=True)
    values.exp_()
    total = torch.zeros_like(values[:, 0])
    for number in range(values.shape[1]):
        total += values[:, number]
    values /= total[:, None]


def _weighted_sum(
    window: Float32[Tensor, "B maps rows columns"], weights: Float32[Tensor, "B neighbours H W"], preset: ParPreset
) -> Float32[Tensor, "B maps H W"]:
    """Product and sum are two steps, because in one they would be rounded once here and twice there."""
    total = window.new_zeros((*window.shape[:2], *weights.shape[2:]))
    product = torch.empty_like(total)
    for number, neighbour in enumerate(_neighbours(window, preset)):
        torch.mul(neighbour, weights[:, None, number], out=product)
        total += product
    return total


def _neighbours(window: Float32[Tensor, "B maps rows columns"], preset: ParPreset) -> Iterator[Tensor]:
    """Views of the window, each with one neighbour of every pixel."""
    reach = max(preset.dilations)
    height, width = window.shape[-2] - 2 * reach, window.shape[-1] - 2 * reach
    for dilation in preset.dilations:
        for row, column in AROUND:
            top, left = reach + row * dilation, reach + column * dilation
            yield window[..., top : top + height, left : left + width]


def _widen_block(
    maps: Float32[Tensor, "B maps H W"], block: slice, reach: int
) -> Float32[Tensor, "B maps rows columns"]:
    """A block of rows with what is around it."""
    above, below = (
        maps[..., max(0, block.start - reach) : block.start, :],
        maps[..., block.stop : block.stop + reach, :],
    )
    return _pad_edges(above, maps[..., block, :], below, reach)


def _pad_edges(
    above: Float32[Tensor, "B maps R1 W"],
    block: Float32[Tensor, "B maps R2 W"],
    below: Float32[Tensor, "B maps R3 W"],
    reach: int,
) -> Float32[Tensor, "B maps rows columns"]:
    """With `reach` more pixels on every side; where the picture ends, those at its edge."""
    near = torch.cat([above[..., -reach:, :], block, below], dim=-2)
    missing_above, missing_below = reach - min(reach, above.shape[-2]), reach - below.shape[-2]
    return functional.pad(near, (reach, reach, missing_above, missing_below), mode="replicate")


def _resize_maps(maps: Float32[Tensor, "B maps H W"], size: tuple[int, int]) -> Float32[Tensor, "B maps rows columns"]:
    """Bilinear, pixels by their centres, as torch's interpolate, which rounds otherwise with other threads."""
    for dim, length in zip((-2, -1), size, strict=True):
        before = maps.shape[dim]
        at = (((torch.arange(length).double() + 0.5) * before / length) - 0.5).clamp(0, before - 1)
        low = at.long()
        share = (at - low).float().to(maps.device)
        share = share[:, None] if dim == -2 else share
        upper = maps.index_select(dim, (low + 1).clamp(max=before - 1).to(maps.device)).mul_(share)
        maps = maps.index_select(dim, low.to(maps.device)).mul_(1 - share).add_(upper)
    return maps
