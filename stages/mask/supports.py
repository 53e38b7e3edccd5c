"""Chooses the supports of each picture, and reads their class queries.

Letters: R rows, N pictures of one class and split, K supports, H heads, E width of a head, D = H·E.

CST draws a support for every episode. Here `supports` = K takes the K other pictures of the same class and split with
the smallest hash of (seed, picture, class, support): a new picture changes only the rows whose K it joins. `all` takes
all of them, 0 the picture itself. All three are this project's own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt64
from torch import Tensor

from ...manifests.artifact.tokens import Tokens
from ..vision.feature_forms import Feature
from ..vision.patch_features import fields_of, read_queries

GroupKey = tuple[int, str]  # class and split
_SLOTS = 64  # units of class queries kept in memory: about 12 MB for a small backbone
_ROWS_AT_ONCE = 1024  # class queries summed together


@dataclass(frozen=True, slots=True)
class SupportGroup:
    """The pictures of a class and split that can be supports, in the order of the row list."""

    positions_N: Int64[np.ndarray, " N"]  # in the tokens' row list
    hashes_N: UInt64[np.ndarray, " N"]  # of the ids
    digests: Sequence[str]  # of the class queries

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def id_hash(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


def choose_supports(
    group: SupportGroup, position: int, identifier: str, key: GroupKey, count: int, seed: int
) -> list[int]:
    """Places in the group of a picture's `count` supports, smallest hash first; fewer if the group is smaller."""
    hashes_N = _mix_bits(group.hashes_N ^ np.uint64(id_hash(f"{seed}\0{key[0]}\0{identifier}")))
    others = np.flatnonzero(group.positions_N != position)
    if len(others) > count:
        others = others[np.argpartition(hashes_N[others], count)[:count]]
    return others[np.lexsort((group.positions_N[others], hashes_N[others]))].tolist()


def _mix_bits(values: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """splitmix64's finaliser: every input bit changes half of the output bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class ClassQueryCache:
    """Normalised class queries by position, read and cached by unit."""

    def __init__(self, tokens: Tokens, feature: Feature) -> None:
        self._tokens, self._feature = tokens, feature
        plan = tokens.artifact.plan
        units = list(plan.layout(plan.group_of(fields_of(feature, has_queries=True)[-1])).units())
        self._bounds = np.array([*(unit.start for unit in units), plan.num_rows])
        self._units: dict[int, Float32[Tensor, "R H E"]] = {}

    def at(self, positions: Sequence[int]) -> Float32[Tensor, "R H E"]:
        units = self._bounds.searchsorted(positions, side="right") - 1
        places = (positions - self._bounds[units]).tolist()
        return torch.stack([self._unit(unit)[place] for unit, place in zip(units.tolist(), places, strict=True)])

    def sum(self, positions: Sequence[int]) -> Tensor:
        """The sum of class queries in float64; subtracting one gives the mean of the others."""
        total = torch.zeros(self.at(positions[:1])[0].shape, dtype=torch.float64)
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            total += self.at(positions[start : start + _ROWS_AT_ONCE]).double().sum(dim=0)
        return total

    def _unit(self, index: int) -> Float32[Tensor, "R H E"]:
        if index not in self._units:
            while len(self._units) >= _SLOTS:
                self._units.pop(next(iter(self._units)))
            positions = range(*self._bounds[index : index + 2].tolist())
            self._units[index] = read_queries(self._tokens, self._feature, positions)
        return self._units[index]
