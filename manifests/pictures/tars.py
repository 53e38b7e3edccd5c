"""Indexes tar files, so that members are read by byte range and nothing is unpacked.

Indices are cached per process, and rebuilt if the tar's size or time of change differs.
"""

import io
import posixpath
import tarfile
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from ..errors import InputError
from ..files.place import FileStat, Place, reading

PACKED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst")

_MAX_MEMBERS_KEPT = 1_000_000  # about 300 MB of names and offsets


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The regular files of one tar in its order, without links, folders and devices."""

    members: dict[str, tuple[int, int]]  # name → offset and size
    repeated: str  # a name that occurs twice, or ""; the last member counts, as in unpacking
    stat: FileStat  # of the tar when it was scanned


def member_name(name: str) -> str:
    """A member's name without a leading `./` or `/`, as tar unpacks it."""
    return posixpath.normpath(name.lstrip("/")) if name else ""


def tar_index(path: str) -> TarIndex:
    """The index of the tar at a path or URL, cached while the tar is unchanged; thread-safe."""
    state = Place(path).stat()
    if state is None:
        raise FileNotFoundError(path)
    return _KEPT.get(path, state)


def _scan(path: str, state: FileStat) -> TarIndex:
    members: dict[str, tuple[int, int]] = {}
    repeated = ""
    try:
        with reading(path), Place(path).open("") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
                if not member.isreg():
                    continue
                if member.issparse():
                    raise InputError(
                        f"{path}: {member.name!a} is stored as a sparse file; pack the tar without --sparse"
                    )
                name = member_name(member.name)
                repeated = repeated or (name if name in members else "")
                members.pop(name, None)
                members[name] = (member.offset_data, member.size)
            _check_end(path, stream, archive.offset)
    except tarfile.TarError as error:
        raise InputError(f"{path} cannot be read as an uncompressed tar: {error}; pack or copy it again") from error
    return TarIndex(members, repeated, state)


def _check_end(path: str, stream: io.IOBase, offset: int) -> None:
    """Python's tarfile silently stops at a damaged header, and at the end of a tar that was cut off."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise InputError(f"{path} has no end mark at byte {offset}, so it is cut off or damaged; copy it again")


class _KeptIndices:
    """The most recently used indices, bounded by their total number of members."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._scanning = Lock()  # so that parallel threads scan a tar once
        self._indices: OrderedDict[str, TarIndex] = OrderedDict()

    def get(self, path: str, state: FileStat) -> TarIndex:
        if kept := self._fresh(path, state):
            return kept
        with self._scanning:
            if kept := self._fresh(path, state):
                return kept
            index = _scan(path, state)
            self._keep(path, index)
            return index

    def _fresh(self, path: str, state: FileStat) -> TarIndex | None:
        with self._lock:
            index = self._indices.get(path)
            if index is None or index.stat != state:
                return None
            self._indices.move_to_end(path)
            return index

    def _keep(self, path: str, index: TarIndex) -> None:
        with self._lock:
            self._indices.pop(path, None)
            self._indices[path] = index
            total = sum(len(kept.members) for kept in self._indices.values())
            while total > _MAX_MEMBERS_KEPT and len(self._indices) > 1:
                _, dropped = self._indices.popitem(last=False)
                total -= len(dropped.members)


_KEPT = _KeptIndices()
