"""Sealed JSON: one canonical form that contains the sha256 of the rest.

A reader parses the file, rebuilds the canonical bytes and compares, so any changed bit is detected.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import CorruptArtifact
from . import atomic
from .place import Place

Json = Any  # the result of json.loads


def canonical(value: Json) -> bytes:
    """The canonical bytes of a value: sorted keys, no spaces, no NaN; None and absent differ."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Json) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def seal(value: Mapping[str, Json]) -> bytes:
    return canonical({**value, "sha256": digest_of(value)}) + b"\n"


def unseal(data: bytes, where: str) -> dict[str, Json]:
    """The value of sealed bytes; raises CorruptArtifact, which names `where`, if they were changed."""
    try:
        value: dict[str, Json] = json.loads(data)
        del value["sha256"]
        if seal(value) == data:
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # not sealed JSON
    raise CorruptArtifact(f"{where} does not hold the bytes that were written; restore it or run its stage again")


def write(place: Place, name: str, value: Mapping[str, Json]) -> None:
    atomic.write(place, name, seal(value))


def read(place: Place, name: str) -> dict[str, Json]:
    """The value of a sealed file. Raises FileNotFoundError."""
    return unseal(place.read(name), place.path(name))
