"""Random numbers for whole batches, from one generator each.

They are drawn on the generator's device and then moved, so that a generator of the CPU gives a GPU the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from ..learning.processes import WHOLE, BatchSlice


@dataclass(frozen=True, slots=True)
class Draws:
    """A generator, and which rows of a batch its numbers are for: they are drawn for the whole batch, so that what a
    row gets does not depend on which process has it."""

    generator: torch.Generator
    part: BatchSlice = WHOLE


def draws_at(seed: int, *place: int, part: BatchSlice = WHOLE) -> Draws:
    """For one place of a run, such as a step: the same numbers whenever the run comes there.

    The places are mixed before seeding, because torch's generator of the CPU reads the low 32 bits of a seed only.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=place).generate_state(1)
    return Draws(torch.Generator().manual_seed(int(mixed[0])), part)


def draw_shares(draws: Draws, shape: Sequence[int], device: torch.device, rows: int = 0) -> Float32[Tensor, "..."]:
    """Each from [0, 1). The axis of this number is that of the batch's rows."""
    whole = [size * draws.part.count if axis == rows else size for axis, size in enumerate(shape)]
    drawn = torch.rand(*whole, generator=draws.generator, device=draws.generator.device)
    return draws.part.take(drawn, rows).to(device)


def draw_noise(draws: Draws, like: Float32[Tensor, "B *N"]) -> Float32[Tensor, "B *N"]:
    """Normal, of mean 0 and deviation 1."""
    shape = (len(like) * draws.part.count, *like.shape[1:])
    return draws.part.take(torch.randn(shape, generator=draws.generator, device=draws.generator.device)).to(like)


def draw_order(draws: Draws, count: int) -> list[int]:
    """Of so many things, the same for all rows."""
    return torch.randperm(count, generator=draws.generator, device=draws.generator.device).tolist()


def draw_uniform(
    draws: Draws, shape: Sequence[int], low: float, high: float, device: torch.device
) -> Float32[Tensor, "..."]:
    return low + (high - low) * draw_shares(draws, shape, device)


def draw_bernoulli(draws: Draws, shape: Sequence[int], probability: float, device: torch.device) -> Bool[Tensor, "..."]:
    """Each true with this probability; always at 1 and never at 0."""
    return draw_shares(draws, shape, device) < probability


def whole_below(share: Float32[Tensor, "*shape"], limit: Int64[Tensor, "..."] | int) -> Int64[Tensor, "*shape"]:
    """A share of [0, 1) as one of 0, 1 … limit − 1."""
    return (share * limit).long()
