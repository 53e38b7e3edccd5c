"""JSON that shows every changed byte: one canonical form, with the sha256 of the rest inside.

A reader parses, rebuilds the canonical bytes and compares them with the file, so a flipped bit anywhere is found.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import CorruptArtifact
from . import atomic
from .place import Place

Json = Any  # what json.loads gives


def canonical(value: Json) -> bytes:
    """The one spelling of a value: sorted keys, no spaces, no NaN, `None` kept (absent and None are different)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Json) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def seal(value: Mapping[str, Json]) -> bytes:
    return canonical({**value, "sha256": digest_of(value)}) + b"\n"


def unseal(data: bytes, where: str) -> dict[str, Json]:
    """The value of sealed bytes; CorruptArtifact naming `where` if they are not what was written."""
    try:
        value: dict[str, Json] = json.loads(data)
        del value["sha256"]
        if seal(value) == data:
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # not even JSON of ours
    raise CorruptArtifact(f"{where} does not hold the bytes that were written; restore it or run its stage again")


def write(place: Place, name: str, value: Mapping[str, Json]) -> None:
    atomic.write(place, name, seal(value))


def read(place: Place, name: str) -> dict[str, Json]:
    """A sealed file's value. Raises FileNotFoundError where there is none."""
    return unseal(place.read(name), place.path(name))
