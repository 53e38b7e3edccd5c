"""What was made from what: three fingerprints, of an artifact, of a field in it and of one unit's rows.

artifact  format version, stage, code version, configuration, weights, libraries that change numbers, device type, and
          the fingerprints of the fields it reads
field     the artifact's, or less where a field depends on less, so that a stage reading one field of an artifact is
          not disturbed by a change of another
unit      the fields' it writes, and for each row it reads, in order, the id, the status and the digest of the content
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ..files.sealed import Json, canonical, digest_of

FORMAT_VERSION = 1


def differences(old: Json, new: Json, path: str = "") -> Iterable[tuple[str, Json, Json]]:
    """The named places where two JSON values differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif canonical(old) != canonical(new):
        yield path, old, new


def unit_fingerprint(fields: Mapping[str, str], evidence: Iterable[Sequence[Json]]) -> str:
    """Of the fields a unit writes (name → fingerprint) and of every row it reads, in order."""
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
