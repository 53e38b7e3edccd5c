"""Which pictures an enhancer may learn from: drawn for each class, then parted into what it fits and what it stops on.

A picture's place in the order is a hash of seed and id, so that a picture that is added moves no other.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

STOPPING_SHARE = 5  # one picture of so many


@dataclass(frozen=True, slots=True)
class Part:
    """What one network sees of the pictures that are drawn; it is never judged on either."""

    fitting: Sequence[str]
    stopping: Sequence[str]  # on which the best step is chosen; none where there is but one picture
    held_out: Sequence[str]  # drawn, and seen by other networks only


def in_order(ids: Collection[str], seed: int) -> list[str]:
    def hashed(identifier: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}\0{identifier}".encode(), digest_size=8).digest(), identifier

    return sorted(ids, key=hashed)


def drawn(classes: Mapping[str, Collection[int]], wanted: Callable[[int], int], seed: int) -> list[str]:
    """Of `classes` (id → those that it shows) so many pictures for each class as `wanted` says of their number.

    One that is drawn for a class serves the others that it shows, so there may be fewer in all.
    """
    of_class: dict[int, list[str]] = {}
    for identifier in in_order(classes, seed):
        for index in classes[identifier]:
            of_class.setdefault(index, []).append(identifier)
    chosen = {identifier for ids in of_class.values() for identifier in ids[: wanted(len(ids))]}
    return in_order(chosen, seed)


def parts(ids: Sequence[str], networks: int) -> list[Part]:
    """For each network its part of the pictures, which are in order.

    A fifth of what a network sees, whatever its class, is what it stops on: an enhancer knows of no class, so that one
    mask of each is enough. With several networks each leaves out every `networks`-th picture for others to learn from.
    """
    found = []
    for network in range(networks):
        held_out = list(ids[network::networks]) if networks > 1 else []
        left_out = frozenset(held_out)
        seen = [identifier for identifier in ids if identifier not in left_out]
        num_stopping = max(1, round(len(seen) / STOPPING_SHARE)) if len(seen) > 1 else 0
        found.append(Part(seen[num_stopping:], seen[:num_stopping], held_out))
    return found
