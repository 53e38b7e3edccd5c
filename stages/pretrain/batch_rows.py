"""Which pictures are in which step's batch.

Letters: N usable rows, B of this process's slice of a batch.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from ..learning.processes import BatchSlice

BatchRows = Callable[[int], Int64[np.ndarray, " B"]]


def draw_batch_rows(
    rows: Int64[np.ndarray, " N"], batch: int, epoch_steps: int, seed: int, part: BatchSlice
) -> BatchRows:
    """Step → this process's slice of its batch, sorted, so that neighbours are read together. An epoch has its own
    order, and drops the pictures that do not fill a batch."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, 2, epoch]).permutation(len(rows))

    def rows_at(step: int) -> Int64[np.ndarray, " B"]:
        epoch, place = divmod(step, epoch_steps)
        drawn = order(epoch)[place * batch : (place + 1) * batch]
        return np.split(np.sort(rows[drawn]), part.count)[part.index]

    return rows_at
