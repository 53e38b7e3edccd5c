"""Writes a folder completely or not at all: it is built next to the target and moved there at the end.

An export lists the files that it wrote, and only those files are ever replaced.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..counts import count_of
from ..errors import ConfigError
from ..files import atomic
from ..files.atomic import HashingWriter
from ..files.lock import LOCK, hold_lock
from ..files.place import Place, place
from ..files.sealed import Json

MARK = "maskmill-export.json"


class Folder:
    """A folder that is being written; it counts its files."""

    def __init__(self, at: Place) -> None:
        self._at = at
        self.bytes_of: dict[str, int] = {}  # file → its size

    def write(self, name: str, data: bytes) -> None:
        with self.stream(name) as stream:
            stream.write(data)

    @contextmanager
    def stream(self, name: str) -> Iterator[HashingWriter]:
        """A file to write in pieces."""
        with atomic.building(self._at, name) as stream:
            yield stream
        self.bytes_of[name] = stream.size


def target_of(out: str) -> Place:
    """The local folder at `out`, with links resolved."""
    target = place(out)
    if not target.is_local:
        raise ConfigError(f"{out} is a URL, expected a local folder; give a path as --out")
    return Place(os.path.realpath(target.uri))


@contextmanager
def whole_folder(target: Place, overwrite: bool, mark: dict[str, Json]) -> Iterator[Folder]:
    """Yields a folder to write; it appears at the target if the block ends without an error.

    `mark` is stored with the list of written files, and the block may still add to it.
    """
    part, replaced = _beside(target, "part"), _beside(target, "replaced")
    with hold_lock(part):
        try:
            _recover(target, replaced)
            check_target(target, overwrite)
            _clear(part)  # leftovers of a killed export
            folder = Folder(part)
            yield folder
            mark["files"] = sorted(folder.bytes_of)
            folder.write(MARK, json.dumps(mark, ensure_ascii=False, indent=1).encode() + b"\n")
            check_target(target, overwrite)  # again, since the block may have taken hours
            _put_in_place(part, target, replaced)
        except BaseException:
            _clear(part)
            atomic.remove(part, LOCK)
            atomic.remove_directory(part)
            _recover(target, replaced)
            raise


def check_target(target: Place, overwrite: bool) -> None:
    """Refuses a folder with content; with `overwrite`, accepts one that holds only files of an export."""
    atomic.check_can_write(target)
    names = set(target.names()) - {LOCK} if target.exists() else set()
    if not names:
        return
    if not overwrite:
        raise ConfigError(
            f"{target} is not empty; choose another --out, or pass --overwrite to replace an export there"
        )
    if MARK not in names:
        raise ConfigError(
            f"{target} is not an export: it has no {MARK}, so --overwrite cannot replace it; choose another --out"
        )
    if foreign := sorted(names - read_file_list(target)):
        raise ConfigError(
            f"{target} holds {count_of(len(foreign), 'file')} that its export did not write, the first is "
            f"{foreign[0]!r}; move them away or choose another --out"
        )


def read_file_list(folder: Place) -> frozenset[str]:
    """The files that an export wrote, according to its list."""
    try:
        files = json.loads(folder.read(MARK))["files"]
        return frozenset([MARK, LOCK, *map(str, files)])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return frozenset([LOCK])


def _put_in_place(part: Place, target: Place, replaced: Place) -> None:
    atomic.remove_directory(target)  # if it is empty
    if target.exists():
        atomic.move_directory(target, replaced)
    atomic.move_directory(part, target)
    atomic.remove(target, LOCK)
    _remove_written(replaced)


def _recover(target: Place, replaced: Place) -> None:
    """Completes or undoes the replacement of an export that was killed between its last two steps."""
    if not replaced.exists():
        return
    if target.exists() and any(target.names()):
        _remove_written(replaced)
    else:
        atomic.remove_directory(target)
        atomic.move_directory(replaced, target)


def _remove_written(folder: Place) -> None:
    """Removes the file list last, so that a second try still knows what to remove."""
    names, ours = list(folder.names()), read_file_list(folder)
    atomic.discard(folder, [name for name in names if name in ours and name != MARK])
    if MARK in names:
        atomic.remove(folder, MARK)
    atomic.remove_directory(folder)


def _clear(part: Place) -> None:
    atomic.discard(part, [name for name in part.names() if name != LOCK])
    atomic.remove_directory(part)  # only empty folders inside: the lock stays


def _beside(target: Place, what: str) -> Place:
    folder, _, name = target.uri.rpartition("/")
    return Place(f"{folder}/.{name}.maskmill-{what}")
