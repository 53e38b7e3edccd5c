"""Pictures drawn for each class.

A picture's place in the order is a hash of seed and id, so that a picture that is added moves no other.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping


def order_by_hash(ids: Collection[str], seed: int) -> list[str]:
    def hash_key(identifier: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}\0{identifier}".encode(), digest_size=8).digest(), identifier

    return sorted(ids, key=hash_key)


def draw_per_class(classes: Mapping[str, Collection[int]], wanted: Callable[[int], int], seed: int) -> list[str]:
    """Of `classes` (id → those that it shows) so many pictures for each class as `wanted` says of their number.

    One that is drawn for a class serves the others that it shows, so there may be fewer in all.
    """
    of_class: dict[int, list[str]] = {}
    for identifier in order_by_hash(classes, seed):
        for index in classes[identifier]:
            of_class.setdefault(index, []).append(identifier)
    chosen = {identifier for ids in of_class.values() for identifier in ids[: wanted(len(ids))]}
    return order_by_hash(chosen, seed)
