"""What lies where inside a tar file, so that a member is read by its range and nothing is ever unpacked.

An index is kept per process and dropped when the tar's size or time of change is no longer what it was.
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
    """The regular files of one tar in its own order; links, folders and devices are not among them."""

    members: dict[str, tuple[int, int]]  # name → where its bytes start, how many there are
    repeated: str  # a name that the tar holds twice; unpacking would keep the last, and so does this
    stat: FileStat  # the tar's, when it was scanned


def member_name(name: str) -> str:
    """A member's name as tar would unpack it: without a leading `./` or `/`."""
    return posixpath.normpath(name.lstrip("/")) if name else ""


def tar_index(path: str) -> TarIndex:
    """The index of the tar at a path or URL, from memory where the tar is unchanged; safe to call from threads."""
    found = Place(path).stat()
    if found is None:
        raise FileNotFoundError(path)
    return _KEPT.get(path, found)


def _scan(path: str, found: FileStat) -> TarIndex:
    members: dict[str, tuple[int, int]] = {}
    repeated = ""
    try:
        with reading(path), Place(path).open("") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                if not member.isreg():
                    continue
                if member.issparse():
                    raise InputError(f"{path}: {member.name!a} is stored with holes; pack the tar without --sparse")
                name = member_name(member.name)
                repeated = repeated or (name if name in members else "")
                members.pop(name, None)
                members[name] = (member.offset_data, member.size)
            _check_end(path, stream, archive.offset)
    except tarfile.TarError as error:
        raise InputError(f"{path} cannot be read as an uncompressed tar: {error}; pack or copy it again") from error
    return TarIndex(members, repeated, found)


def _check_end(path: str, stream: io.IOBase, offset: int) -> None:
    """Python's tarfile ends in silence at a damaged header, and at a tar that was cut between two members."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise InputError(
            f"{path} has no end mark at byte {offset}, so members may be missing; it is cut off or damaged: copy it"
        )


class _KeptIndices:
    """The indices used last, bounded by the number of members they hold together."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._scanning = Lock()  # a tar that many threads ask for at once is scanned once
        self._indices: OrderedDict[str, TarIndex] = OrderedDict()

    def get(self, path: str, found: FileStat) -> TarIndex:
        if kept := self._fresh(path, found):
            return kept
        with self._scanning:
            if kept := self._fresh(path, found):
                return kept
            index = _scan(path, found)
            self._keep(path, index)
            return index

    def _fresh(self, path: str, found: FileStat) -> TarIndex | None:
        with self._lock:
            index = self._indices.get(path)
            if index is None or index.stat != found:
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
