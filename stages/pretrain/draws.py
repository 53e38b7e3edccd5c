"""Random numbers for whole batches, from one generator each.

They are drawn on the generator's device and then moved, so that a generator of the CPU gives a GPU the same numbers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor


def generator_at(seed: int, *place: int) -> torch.Generator:
    """For one place of a run, such as (step, process): the same numbers whenever the run comes there.

    The places are mixed before seeding, because torch's generator of the CPU reads the low 32 bits of a seed only.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=place).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))


def shares(generator: torch.Generator, shape: Sequence[int], device: torch.device) -> Float32[Tensor, "..."]:
    """Each from [0, 1)."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(device)


def uniform(
    generator: torch.Generator, shape: Sequence[int], low: float, high: float, device: torch.device
) -> Float32[Tensor, "..."]:
    return low + (high - low) * shares(generator, shape, device)


def chosen(
    generator: torch.Generator, shape: Sequence[int], probability: float, device: torch.device
) -> Bool[Tensor, "..."]:
    """Each true with this probability; always at 1 and never at 0."""
    return shares(generator, shape, device) < probability


def whole_below(share: Float32[Tensor, "*shape"], limit: Int64[Tensor, "..."] | int) -> Int64[Tensor, "*shape"]:
    """A share of [0, 1) as one of 0, 1 … limit − 1."""
    return (share * limit).long()
