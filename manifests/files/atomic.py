"""The one writer of files: after any crash a name holds its old bytes or its new bytes, never half of them.

On a disk: temporary file, fsync, rename, fsync of the directory, so that what is written later never outlives what
was written before it. In an object store: one PUT, which is atomic by itself.
"""

import errno
import hashlib
import io
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from ..errors import EnvironmentFault
from .place import Place, filesystem_of, key_of

TEMPORARY_SUFFIX = ".tmp"


class HashingWriter:
    """A file being written, its size and sha256 known as it grows."""

    def __init__(self, stream: Any) -> None:  # an open file, or an object store's own kind of one
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += memoryview(data).nbytes
        self._stream.write(data)
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Left to `replacing`, which must flush to disk before it closes; callers such as pyarrow close too early."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def replacing(place: Place, name: str) -> Iterator[HashingWriter]:
    """Gives a stream whose content appears under `name`, whole, when the block ends without an error."""
    with _replacing(place, name) as stream:
        yield HashingWriter(stream)


@contextmanager
def _replacing(place: Place, name: str) -> Iterator[Any]:
    with _writing(place.path(name)):
        if not place.is_local:
            with _putting(place, name) as stream:
                yield stream
            return
        target = place.path(name)
        temporary = f"{target}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        try:  # a signal may come as soon as the file is there
            with _open_new(temporary) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            if os.path.lexists(temporary):
                _remove_if_there(temporary)
            raise
        _sync_directory(os.path.dirname(target))


@contextmanager
def _putting(place: Place, name: str) -> Iterator[Any]:
    """An object that appears when the block ends without an error."""
    filesystem, key = filesystem_of(place.uri), key_of(place.path(name))
    if not place.uri.startswith(_STREAMING):
        buffer = io.BytesIO()
        yield buffer
        filesystem.pipe_file(key, buffer.getvalue())
        return
    # Closed without commit, a remote file never appears; leaving its own `with` on an error would publish it.
    remote = filesystem.open(key, "wb", autocommit=False, block_size=_PART)
    try:
        yield remote
        remote.close()
        remote.commit()
    except BaseException:
        remote.discard()
        raise


# Stores whose files are uploaded in parts and published in one step; elsewhere fsspec publishes what a failed write
# has written so far.
_STREAMING = ("s3://", "s3a://", "gs://", "gcs://")
_PART = 16 * 2**20  # held in memory, of every upload under way; S3 takes 10,000 parts


def write(place: Place, name: str, data: bytes | bytearray | memoryview) -> None:
    """Writes a whole file."""
    if not place.is_local:
        with _writing(place.path(name)):
            filesystem_of(place.uri).pipe_file(key_of(place.path(name)), bytes(data))
        return
    with _replacing(place, name) as stream:
        stream.write(data)


def create(place: Place, name: str, data: bytes) -> bool:
    """Writes a file only if there is none of that name; False if there was one. The name is taken in one indivisible
    step; on a disk, a process that is killed right then leaves it without bytes."""
    with _writing(place.path(name)):
        try:
            if place.is_local:
                with _open_new(place.path(name)) as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                _sync_directory(os.path.dirname(place.path(name)))
            else:
                filesystem_of(place.uri).pipe_file(key_of(place.path(name)), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if not _is_lost_race(error):
                raise
            return False
    return True


def remove(place: Place, name: str) -> bool:
    """Removes a file, durably; False if there was none, which an object store does not tell."""
    with _writing(place.path(name)):
        if place.is_local:
            if not _remove_if_there(place.path(name)):
                return False
            _sync_directory(os.path.dirname(place.path(name)))
            return True
        try:
            filesystem_of(place.uri).rm_file(key_of(place.path(name)))
        except FileNotFoundError:
            return False
        return True


def discard(place: Place, names: Iterable[str]) -> None:
    """Removes local files that nobody reads any more; after a crash some may be there again."""
    with _writing(place.uri):
        for name in names:
            _remove_if_there(place.path(name))


def sweep_temporaries(place: Place) -> int:
    """Removes what killed writers left. Only for the exclusive holder of the lock: a live writer has one too."""
    leftovers = [name for name in place.names() if name.endswith(TEMPORARY_SUFFIX)] if place.is_local else []
    return sum(remove(place, name) for name in leftovers)


def make_directory(place: Place) -> None:
    """Makes a local directory with its parents; an object store needs none."""
    if place.is_local:
        with _writing(place.uri):
            os.makedirs(place.uri, exist_ok=True)


@contextmanager
def building(place: Place, name: str) -> Iterator[HashingWriter]:
    """A new file in a local directory that nobody reads yet; it is safe on the disk once `move_directory` is done."""
    with _writing(place.path(name)), _open_new(place.path(name)) as stream:
        yield HashingWriter(stream)


def move_directory(built: Place, target: Place) -> None:
    """Gives a local directory another name, all that is in it safe on the disk first; `target` is not there, or is
    empty."""
    with _writing(built.uri):
        for there, _, files in os.walk(built.uri, topdown=False):
            for name in files:
                _sync_file(os.path.join(there, name))
            _sync_directory(there)
    with _writing(target.uri):
        os.rename(built.uri, target.uri)
        _sync_directory(os.path.dirname(target.uri))


def remove_directory(place: Place) -> None:
    """Removes a local directory and the empty ones in it; one that holds a file stays as it is."""
    if not place.is_local:
        return
    for there, _, _ in os.walk(place.uri, topdown=False):
        try:
            os.rmdir(there)
        except OSError:  # not empty, or a mount point: nothing is lost by leaving it
            continue


def check_can_write(place: Place) -> None:
    """Refuses, before any work, a place that cannot be written; makes nothing."""
    if not place.is_local:
        return
    there = place.uri
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise EnvironmentFault(f"cannot write {place}: {there} is a file, not a directory; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"cannot write {place}: no permission in {there}; choose another place or change its rights"
        )


def free_bytes(place: Place) -> int:
    """What a local place's disk has left for this user."""
    there = place.uri
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def open_for_locking(path: str) -> int:
    """A file descriptor that flock can hold; the file is made if need be and never truncated."""
    with _writing(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def overwrite_descriptor(descriptor: int, path: str, data: bytes) -> None:
    """Replaces the content behind an open descriptor; not atomic, for the lock's note on who holds it."""
    with _writing(path):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


class Log:
    """Lines appended to one file of its own per process; in no digest, so a torn last line is harmless."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self._stream: IO[bytes] | None = None
        self._lines: list[bytes] = []
        self._one_at_a_time = threading.Lock()  # units are computed and written in different threads

    def append(self, line: bytes) -> None:
        with self._one_at_a_time:
            self._append(line)

    def _append(self, line: bytes) -> None:
        if not self._place.is_local:  # an object cannot grow: the whole log is put when it is closed
            self._lines.append(line + b"\n")
            return
        with _writing(self._place.path(self._name)):
            if self._stream is None:
                path = self._place.path(self._name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._stream = open(path, "ab", buffering=0)  # noqa: SIM115 it stays open until `close`
            self._stream.write(line + b"\n")

    def close(self) -> None:
        if self._lines:
            write(self._place, self._name, b"".join(self._lines))
            self._lines = []
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _open_new(path: str) -> IO[bytes]:
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def _remove_if_there(path: str) -> bool:
    try:
        os.remove(path)
    except FileNotFoundError:
        return False
    return True


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)


_REMEDIES = {
    errno.ENOSPC: "free space or choose another --out, then run the same command again",
    errno.EDQUOT: "free space or raise the quota, then run the same command again",
    errno.EFBIG: "raise the file size limit (ulimit -f) or lower --unit-rows, then run the same command again",
    errno.EACCES: "choose another place or change its rights",
    errno.EPERM: "choose another place or change its rights",
    errno.EROFS: "choose a place on a writable disk",
}


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, EnvironmentFault):
        raise
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        remedy = _REMEDIES.get(cast(int, error.errno), "check the disk or host, then run the same command again")
        raise EnvironmentFault(f"cannot write {path}: {why}; {remedy}") from error
    except Exception as error:
        if "://" not in path or type(error).__module__.startswith(("maskmill", "builtins", "pyarrow", "zarr")):
            raise
        raise EnvironmentFault(
            f"cannot write {path}: {error}; check the URL, the credentials and the network, "
            "then run the same command again"
        ) from error


def _is_lost_race(error: OSError) -> bool:
    """S3 answers a conditional PUT that came second with one of two codes, which its client keeps in the cause."""
    answer = getattr(error.__cause__, "response", {})
    return answer.get("Error", {}).get("Code") in {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
