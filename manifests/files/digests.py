"""sha256 of files: recorded when they are written, and checked before they are used."""

import hashlib
from dataclasses import dataclass

from ..errors import CorruptArtifact
from .place import Place
from .sealed import Json

_BLOCK = 2**20
_checked: set[tuple[str, str]] = set()  # (path, sha256) of files that this process has verified


@dataclass(frozen=True, slots=True)
class FileDigest:
    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes | memoryview) -> "FileDigest":
        return cls(hashlib.sha256(data).hexdigest(), memoryview(data).nbytes)

    def as_json(self) -> dict[str, Json]:
        return {"bytes": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> "FileDigest":
        return cls(str(value["sha256"]), int(value["bytes"]))


def fault(place: Place, name: str, expected: FileDigest) -> str | None:
    """What is wrong with a file, or None. Reads the whole file unless its size is wrong."""
    stored = place.stat(name)
    if stored is None:
        return f"{place.path(name)} is missing"
    if stored.size != expected.size:
        return f"{place.path(name)} has {stored.size} bytes, expected {expected.size}"
    running = hashlib.sha256()
    try:
        with place.open(name) as stream:
            while block := stream.read(_BLOCK):
                running.update(block)
    except FileNotFoundError:
        return f"{place.path(name)} is missing"
    if running.hexdigest() != expected.sha256:
        return f"{place.path(name)} does not hold the bytes that were written"
    return None


def check(place: Place, name: str, expected: FileDigest) -> None:
    """Raises CorruptArtifact if a file is damaged; reads it once per process."""
    key = (place.path(name), expected.sha256)
    if key in _checked:
        return
    wrong = fault(place, name, expected)
    if wrong is not None:
        raise CorruptArtifact(f"{wrong}; run its stage again to rebuild it, or restore it from a copy")
    _checked.add(key)
