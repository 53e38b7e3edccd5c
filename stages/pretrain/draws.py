"""Random numbers for whole batches from one generator. They are drawn on its device and then moved, so that a CPU
generator gives a GPU the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from ..learning.processes import WHOLE, BatchSlice


@dataclass(frozen=True, slots=True)
class Draws:
    """A generator, and the rows of a batch to keep numbers for. Numbers are drawn for the whole batch, so that a row's
    numbers do not depend on the process that has it."""

    generator: torch.Generator
    part: BatchSlice = WHOLE


def draws_at(seed: int, *place: int, part: BatchSlice = WHOLE) -> Draws:
    """A generator for one place of a run, such as a step, independent of what came before.

    Seed and place are mixed, because torch's CPU generator reads only the low 32 bits of a seed.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=place).generate_state(1)
    return Draws(torch.Generator().manual_seed(int(mixed[0])), part)


def draw_shares(draws: Draws, shape: Sequence[int], device: torch.device, rows: int = 0) -> Float32[Tensor, "..."]:
    """Uniform in [0, 1). `rows` is the batch axis."""
    whole = [size * draws.part.count if axis == rows else size for axis, size in enumerate(shape)]
    drawn = torch.rand(*whole, generator=draws.generator, device=draws.generator.device)
    return draws.part.take(drawn, rows).to(device)


def draw_noise(draws: Draws, like: Float32[Tensor, "B *N"]) -> Float32[Tensor, "B *N"]:
    """Standard normal numbers."""
    shape = (len(like) * draws.part.count, *like.shape[1:])
    return draws.part.take(torch.randn(shape, generator=draws.generator, device=draws.generator.device)).to(like)


def draw_order(draws: Draws, count: int) -> list[int]:
    """A permutation of `count` items, the same for all rows."""
    return torch.randperm(count, generator=draws.generator, device=draws.generator.device).tolist()


def draw_uniform(
    draws: Draws, shape: Sequence[int], low: float, high: float, device: torch.device
) -> Float32[Tensor, "..."]:
    return low + (high - low) * draw_shares(draws, shape, device)


def draw_bernoulli(draws: Draws, shape: Sequence[int], probability: float, device: torch.device) -> Bool[Tensor, "..."]:
    """True with this probability; always at 1 and never at 0."""
    return draw_shares(draws, shape, device) < probability


def whole_below(share: Float32[Tensor, "*shape"], limit: Int64[Tensor, "..."] | int) -> Int64[Tensor, "*shape"]:
    """Maps a share in [0, 1) to an integer from 0 to limit − 1."""
    return (share * limit).long()
