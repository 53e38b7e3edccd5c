"""Draws pictures per class, ordered by a hash of seed and id, so that adding a picture does not reorder the others."""

import hashlib
from collections.abc import Callable, Collection, Mapping


def order_by_hash(ids: Collection[str], seed: int) -> list[str]:
    def hash_key(identifier: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}\0{identifier}".encode(), digest_size=8).digest(), identifier

    return sorted(ids, key=hash_key)


def draw_per_class(classes: Mapping[str, Collection[int]], wanted: Callable[[int], int], seed: int) -> list[str]:
    """Draws `wanted(count)` of the `count` pictures of each class, from `classes` (id → its classes).

    A picture may be drawn for several classes, so the total may be smaller.
    """
    ids_by_class: dict[int, list[str]] = {}
    for identifier in order_by_hash(classes, seed):
        for index in classes[identifier]:
            ids_by_class.setdefault(index, []).append(identifier)
    chosen = {identifier for ids in ids_by_class.values() for identifier in ids[: wanted(len(ids))]}
    return order_by_hash(chosen, seed)
