"""Fingerprints of an artifact, of one of its fields and of one unit's rows: what each was made from.

artifact  format version, stage, code version, config, weights, libraries that change numbers, device type, and the
          fingerprints of the fields it reads
field     the artifact's, or less if the field depends on less: a change of one field then leaves readers of another
          untouched
unit      the fingerprints of the fields it writes, and for each row it reads, in order: id, status, content digest
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ..files.sealed import Json, canonical, digest_of

FORMAT_VERSION = 1


def differences(old: Json, new: Json, path: str = "") -> Iterable[tuple[str, Json, Json]]:
    """Path, old value and new value of every place where two JSON values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif canonical(old) != canonical(new):
        yield path, old, new


def unit_fingerprint(fields: Mapping[str, str], evidence: Iterable[Sequence[Json]]) -> str:
    """The fingerprint of a unit, from the fields it writes (name → fingerprint) and every row it reads, in order."""
    running = hashlib.sha256(canonical(dict(fields)))
    for row in evidence:
        running.update(canonical(list(row)))
        running.update(b"\n")
    return running.hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    running = hashlib.sha256()
    for identifier in ids:
        running.update(identifier.encode())
        running.update(b"\0")
    return running.hexdigest()


def fingerprint(basis: Mapping[str, Json]) -> str:
    return digest_of({"format": FORMAT_VERSION, **basis})
