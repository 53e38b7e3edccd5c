"""A folder that is there whole or not at all: built beside its place, and moved there when everything is in it.

What an export has written is listed in a file of its own, and nothing else is ever replaced.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigError
from ..files import atomic
from ..files.atomic import HashingWriter
from ..files.lock import LOCK, hold_lock
from ..files.place import Place, place
from ..files.sealed import Json

MARK = "maskmill-export.json"


class Folder:
    """A folder while it is written; its files are counted as they come."""

    def __init__(self, at: Place) -> None:
        self._at = at
        self.bytes_of: dict[str, int] = {}  # file → its size

    def write(self, name: str, data: bytes) -> None:
        with self.stream(name) as stream:
            stream.write(data)

    @contextmanager
    def stream(self, name: str) -> Iterator[HashingWriter]:
        """A file that is written piece by piece."""
        with atomic.building(self._at, name) as stream:
            yield stream
        self.bytes_of[name] = stream.size


def target_of(out: str) -> Place:
    """The folder that a user named, links followed; it must be one of this machine."""
    target = place(out)
    if not target.is_local:
        raise ConfigError(f"{out} is a URL, and an export is a folder of this machine; give a path as --out")
    return Place(os.path.realpath(target.uri))


@contextmanager
def whole_folder(target: Place, overwrite: bool, mark: dict[str, Json]) -> Iterator[Folder]:
    """Gives a folder to write, which lies at the target when the block ends without an error.

    `mark` is told in the list of what was written, and may still grow while the block runs.
    """
    part, replaced = _beside(target, "part"), _beside(target, "replaced")
    with hold_lock(part):
        try:
            _recover(target, replaced)
            check_target(target, overwrite)
            _clear(part)  # of what a killed export left
            folder = Folder(part)
            yield folder
            mark["files"] = sorted(folder.bytes_of)
            folder.write(MARK, json.dumps(mark, ensure_ascii=False, indent=1).encode() + b"\n")
            check_target(target, overwrite)  # once more, since this may have taken hours
            _put_in_place(part, target, replaced)
        except BaseException:
            _clear(part)
            atomic.remove(part, LOCK)
            atomic.remove_directory(part)
            _recover(target, replaced)
            raise


def check_target(target: Place, overwrite: bool) -> None:
    """Refuses a folder that holds anything but, where it may be replaced, what an export wrote."""
    atomic.check_can_write(target)
    if not target.exists():
        return
    found = set(target.names()) - {LOCK}
    if not found:
        return
    if not overwrite:
        raise ConfigError(
            f"{target} is not empty; choose another --out, or pass --overwrite if an export lies there that may go"
        )
    if MARK not in found:
        raise ConfigError(
            f"{target} holds no {MARK}, so no export wrote it and --overwrite leaves it alone; choose another --out"
        )
    if strangers := sorted(found - read_file_list(target)):
        raise ConfigError(
            f"{target} holds {len(strangers)} files that its export did not write, the first is {strangers[0]!r}; "
            "move them away or choose another --out"
        )


def read_file_list(folder: Place) -> frozenset[str]:
    """The files that an export has written there, as its list says."""
    try:
        files = json.loads(folder.read(MARK))["files"]
        return frozenset([MARK, LOCK, *(str(each) for each in files)])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return frozenset([LOCK])


def _put_in_place(part: Place, target: Place, replaced: Place) -> None:
    atomic.remove_directory(target)  # where it is empty
    if target.exists():
        atomic.move_directory(target, replaced)
    atomic.move_directory(part, target)
    atomic.remove(target, LOCK)
    _remove_written(replaced)


def _recover(target: Place, replaced: Place) -> None:
    """Ends what an export that was killed between its last two steps left undone."""
    if not replaced.exists():
        return
    if target.exists() and any(target.names()):
        _remove_written(replaced)
    else:
        atomic.remove_directory(target)
        atomic.move_directory(replaced, target)


def _remove_written(folder: Place) -> None:
    """The list of what was written goes last, so that a second try knows what the first did."""
    found, ours = list(folder.names()), read_file_list(folder)
    atomic.discard(folder, [each for each in found if each in ours and each != MARK])
    if MARK in found:
        atomic.remove(folder, MARK)
    atomic.remove_directory(folder)


def _clear(part: Place) -> None:
    atomic.discard(part, [each for each in part.names() if each != LOCK])
    atomic.remove_directory(part)  # the empty ones in it; itself holds the lock


def _beside(target: Place, what: str) -> Place:
    folder, _, name = target.uri.rpartition("/")
    return Place(f"{folder}/.{name}.maskmill-{what}")
