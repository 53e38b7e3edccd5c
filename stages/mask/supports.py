"""Which pictures stand as supports of which, and the class query that follows from them.

Letters: R rows, N pictures of one class and split, K supports, H heads, E width of a head, D = H·E.

CST draws a support for every episode. Over a dataset, `supports` = K are the K other pictures of the same class and
split with the smallest hash of (seed, picture, class, support), so that a picture that is added changes only those
rows among whose K it comes; `all` are all of them; 0 is the picture itself. All three are this project's own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt64
from torch import Tensor

from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError
from ..maps.cst import normalise_queries

ALL, OWN = "all", "0"
GroupKey = tuple[int, str]  # class and split
_SLOTS = 64  # units of class queries kept in memory: some 12 MB of a small backbone


@dataclass(frozen=True, slots=True)
class SupportGroup:
    """The pictures of a class and split that can be supports, in the order of the row list."""

    positions_N: Int64[np.ndarray, " N"]  # in the tokens' row list
    hashes_N: UInt64[np.ndarray, " N"]  # of their ids
    digests: Sequence[str]  # of their class queries

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def parse_supports(text: str) -> str:
    """ "all", or a number as it is written shortest; raises ConfigError."""
    if text == ALL or (text.isascii() and text.isdigit()):
        return text if text == ALL else str(int(text))
    raise ConfigError(f"supports is {text!r} and must be a number from 0, or all")


def id_hash(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


def choose_supports(
    group: SupportGroup, position: int, identifier: str, key: GroupKey, count: int, seed: int
) -> list[int]:
    """Places in the group of the `count` supports of one picture, nearest first; fewer where there are fewer."""
    place = id_hash(f"{seed}\0{key[0]}\0{identifier}")
    hashes_N = _mix_bits(group.hashes_N ^ np.uint64(place))
    is_other_N = group.positions_N != position
    others = np.flatnonzero(is_other_N)
    if len(others) > count:
        others = others[np.argpartition(hashes_N[others], count)[:count]]
    return others[np.lexsort((group.positions_N[others], hashes_N[others]))].tolist()


def _mix_bits(values: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """splitmix64's finaliser: every bit of the input moves half of the output's."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class ClassQueryCache:
    """Normalised class queries by position, read a unit at a time and kept while they are near."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._heads = tokens.facts.backbone.heads
        plan = tokens.artifact.plan
        units = list(plan.layout(plan.group_of("cls_query")).units())
        self._bounds = np.array([*(unit.start for unit in units), plan.num_rows])
        self._units: dict[int, Float32[Tensor, "R H E"]] = {}

    def at(self, positions: Sequence[int]) -> Float32[Tensor, "R H E"]:
        units = self._bounds.searchsorted(positions, side="right") - 1
        places = (positions - self._bounds[units]).tolist()
        return torch.stack([self._unit(unit)[place] for unit, place in zip(units.tolist(), places, strict=True)])

    def sums(self, groups: Mapping[GroupKey, Sequence[int]]) -> dict[GroupKey, Tensor]:
        """The sum of each group's queries in float64, from which a mean without one of them is a subtraction."""
        return {key: self._sum(positions) for key, positions in groups.items()}

    def _sum(self, positions: Sequence[int]) -> Tensor:
        total = torch.zeros(self.at(positions[:1])[0].shape, dtype=torch.float64)
        for some in _split_positions(positions):
            total += self.at(some).double().sum(dim=0)
        return total

    def _unit(self, index: int) -> Float32[Tensor, "R H E"]:
        if index not in self._units:
            while len(self._units) >= _SLOTS:
                self._units.pop(next(iter(self._units)))
            values = self._tokens.at("cls_query", range(*self._bounds[index : index + 2].tolist()))
            self._units[index] = normalise_queries(torch.from_numpy(values), self._heads)
        return self._units[index]


def _split_positions(positions: Sequence[int], length: int = 1024) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), length):
        yield positions[start : start + length]
