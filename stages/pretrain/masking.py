"""Group masking: drops rectangles of a picture, or replaces them by another picture's, until an area is covered.

Letters: B pictures, H W pixels, R C cells of the alignment along rows and columns, c words of 64 of them, T patches row
by row, G rectangles.

Source: GMML (Sara-Ahmed/GMML, datasets/datasets_utils.py:120-165), with MC-SSL's defaults (main_MCSSL.py:36-41,
datasets_utils.py:130-175). Unlike the published code, a rectangle may begin at the last aligned position, and no
picture is replaced by itself.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ...manifests.errors import ConfigError
from ..learning.processes import exchange_rows, gather_all
from .draws import Draws, draw_bernoulli, draw_noise, draw_shares, whole_below

_AT_ONCE = 8  # rectangles drawn before the processes check whether every picture is done
CPU = torch.device("cpu")
_MOST = 0.9  # share of a picture; more takes too long, since few rectangles cover the upper left corner


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """Each picture's area is drawn from [min(½, largest), largest], so that MC-SSL's values give exactly ½ and 0.3."""

    largest_dropped: float = 0.5  # share of a picture; GMML has 0.75
    largest_replaced: float = 0.3
    replaced: float = 0.5  # probability that parts are replaced instead of dropped; GMML has 0
    fill: Literal["zeros", "noise"] = "zeros"  # for dropped parts: 0 (the mean colour), or normal noise (GMML)
    align_px: int = 1  # alignment of corners; the patch size masks whole patches
    longest_side: float = 0.3  # of the picture's side

    def __post_init__(self) -> None:
        for name, limit in (("largest_dropped", _MOST), ("largest_replaced", _MOST), ("replaced", 1)):
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a value from 0 to {limit}")
        if self.align_px < 1 or not 0 < self.longest_side <= 1:
            raise ConfigError(
                f"align_px is {self.align_px} and longest_side {self.longest_side}; choose at least 1 pixel, and a "
                "share above 0 and at most 1"
            )


@dataclass(frozen=True, slots=True)
class Corrupted:
    pictures: Float[Tensor, "B 3 H W"]
    is_corrupted: Bool[Tensor, "B H W"]
    is_masked: Bool[Tensor, "B T"]  # the patches that count as masked


def corrupt_pictures(pictures: Float[Tensor, "B 3 H W"], masking: Masking, patch_px: int, draws: Draws) -> Corrupted:
    """Drops or replaces parts of normalised pictures; the input stays unchanged."""
    batch, _, height, width = pictures.shape
    for step in (patch_px, masking.align_px):
        if height % step or width % step:
            raise ConfigError(f"picture size {height}x{width} is not a multiple of {step} pixels; choose another size")
    whole, part = Draws(draws.generator), draws.part  # this process must know what the others need
    is_replaced = draw_bernoulli(whole, (batch * part.count,), masking.replaced, CPU)
    largest_B = torch.where(part.take(is_replaced), masking.largest_replaced, masking.largest_dropped)
    share_B = largest_B + (largest_B.clamp_max(0.5) - largest_B) * draw_shares(draws, (batch,), CPU)
    is_corrupted_BHW = group_mask(share_B, (height, width), masking, draws).to(pictures.device)
    if masking.fill == "noise":
        corrupted = torch.where(is_corrupted_BHW[:, None], draw_noise(draws, pictures), pictures)
    else:
        corrupted = pictures.masked_fill(is_corrupted_BHW[:, None], 0)
    if masking.replaced > 0:
        others = _draw_other_pictures(len(is_replaced), whole)
        wanted = [
            rows[mask] for rows, mask in zip(others.chunk(part.count), is_replaced.chunk(part.count), strict=True)
        ]
        rows = part.take(is_replaced).nonzero()[:, 0].to(pictures.device)
        replacements = exchange_rows(pictures, wanted, part)
        corrupted[rows] = torch.where(is_corrupted_BHW[rows][:, None], replacements, pictures[rows])
    return Corrupted(corrupted, is_corrupted_BHW, patch_mask(is_corrupted_BHW, patch_px))


def group_mask(
    share: Float32[Tensor, " B"], size: tuple[int, int], masking: Masking, draws: Draws
) -> Bool[Tensor, "B H W"]:
    """Draws rectangles until their union covers at least this share of each picture.

    Runs on the CPU with one bit per cell, so that counting is cheap and no device is waited for.
    """
    align, batch = masking.align_px, len(share)
    rows, columns = size[0] // align, size[1] // align
    row_R, column_C = np.arange(rows), np.arange(-(-columns // 64) * 64)
    covered_BRc = np.zeros((batch, rows, len(column_C) // 64), np.uint64)
    wanted_B, count_B = (share * (rows * columns)).numpy(), np.zeros(batch, np.int64)
    while bool(gather_all(torch.tensor(bool((count_B < wanted_B).any()))).any()):  # keeps the draws in step
        top_BG, bottom_BG = _draw_sides(size[0], batch, masking, draws)
        left_BG, right_BG = _draw_sides(size[1], batch, masking, draws)
        is_row_BGR = (row_R >= top_BG[..., None]) & (row_R < bottom_BG[..., None])
        is_column_BGC = (column_C >= left_BG[..., None]) & (column_C < right_BG[..., None].clip(max=columns))
        columns_BGc = np.packbits(is_column_BGC, axis=-1, bitorder="little").view(np.uint64)
        for index in range(_AT_ONCE):
            is_row_BR = is_row_BGR[:, index] & (count_B < wanted_B)[:, None]
            covered_BRc |= is_row_BR[:, :, None] * columns_BGc[:, index, None, :]
            count_B = np.bitwise_count(covered_BRc).sum(axis=(1, 2), dtype=np.int64)
    is_covered_BRC = np.unpackbits(covered_BRc.view(np.uint8), axis=-1, count=columns, bitorder="little").view(np.bool_)
    return torch.from_numpy(is_covered_BRC).repeat_interleave(align, dim=1).repeat_interleave(align, dim=2)


def patch_mask(is_corrupted: Bool[Tensor, "B H W"], patch_px: int) -> Bool[Tensor, "B T"]:
    """A patch is masked if more than half of its pixels are corrupted: unaligned masks cut through patches. MC-SSL
    needs no such rule, since its loss covers all patches."""
    batch, height, width = is_corrupted.shape
    pixels = is_corrupted.view(batch, height // patch_px, patch_px, width // patch_px, patch_px)
    corrupted_BRC = pixels.sum(dim=(2, 4))
    return (2 * corrupted_BRC > patch_px**2).flatten(1)


def _draw_sides(
    length_px: int, batch: int, masking: Masking, draws: Draws
) -> tuple[Int64[np.ndarray, "B G"], Int64[np.ndarray, "B G"]]:
    """First cell and the one after the last, along one axis. Sides are drawn in pixels, then rounded to the alignment,
    so that the shortest and longest are rarer, as published."""
    align = masking.align_px
    longest_px = max(align, int(masking.longest_side * length_px))
    length_BG, start_BG = draw_shares(draws, (2, batch, _AT_ONCE), CPU, rows=1)
    side_BG = align + whole_below(length_BG, longest_px - align + 1)
    first_BG = whole_below(start_BG, length_px // align)
    stop_BG = first_BG + (side_BG + align // 2) // align  # cells beyond the border do not count
    return first_BG.numpy(), stop_BG.numpy()


def _draw_other_pictures(batch: int, draws: Draws) -> Int64[Tensor, " B"]:
    """For each picture, a different one of the batch, uniformly."""
    if batch < 2:
        raise ConfigError(
            "a batch of one picture has no other to replace parts with; choose replaced=0 or a larger batch"
        )
    step_B = 1 + whole_below(draw_shares(draws, (batch,), CPU), batch - 1)
    return (torch.arange(batch) + step_B) % batch
