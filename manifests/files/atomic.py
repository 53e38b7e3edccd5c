"""The only writer of files: after a crash a file holds its old bytes or its new bytes, never a mixture.

On a disk: temporary file, fsync, rename, fsync of the directory, so a later write never survives an earlier one that
was lost. In an object store: one PUT, which is atomic.
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
    """An open file that tracks its size and sha256."""

    def __init__(self, stream: Any) -> None:  # an open local or remote file
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
        """Does nothing: callers such as pyarrow close early, but `replacing` must flush to disk first."""

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
    """Yields a stream; its content appears under `name` if the block ends without an error."""
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
        try:  # a signal may arrive as soon as the file exists
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
    """Yields a stream for an object that appears if the block ends without an error."""
    filesystem, key = filesystem_of(place.uri), key_of(place.path(name))
    if not place.uri.startswith(_STREAMING):
        buffer = io.BytesIO()
        yield buffer
        filesystem.pipe_file(key, buffer.getvalue())
        return
    # Its own `with` block would publish the file after an error; without commit it never appears.
    remote = filesystem.open(key, "wb", autocommit=False, block_size=_PART)
    try:
        yield remote
        remote.close()
        remote.commit()
    except BaseException:
        remote.discard()
        raise


# Stores that upload in parts and publish in one step; elsewhere fsspec publishes the partial file of a failed write.
_STREAMING = ("s3://", "s3a://", "gs://", "gcs://")
_PART = 16 * 2**20  # memory per running upload; S3 takes 10,000 parts


def write(place: Place, name: str, data: bytes | bytearray | memoryview) -> None:
    """Writes a whole file."""
    if not place.is_local:
        with _writing(place.path(name)):
            filesystem_of(place.uri).pipe_file(key_of(place.path(name)), bytes(data))
        return
    with _replacing(place, name) as stream:
        stream.write(data)


def create(place: Place, name: str, data: bytes) -> bool:
    """Writes a file only if it does not exist; returns False if it does. Creation is atomic, but a process killed
    right after it leaves an empty file on a disk."""
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
    """Removes a file durably; False if there was none. Object stores may return True anyway."""
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
    """Removes unused local files without fsync: some may reappear after a crash."""
    with _writing(place.uri):
        for name in names:
            _remove_if_there(place.path(name))


def sweep_temporaries(place: Place) -> int:
    """Removes temporaries of killed writers. Requires the exclusive lock, since live writers have temporaries too."""
    leftovers = [name for name in place.names() if name.endswith(TEMPORARY_SUFFIX)] if place.is_local else []
    return sum(remove(place, name) for name in leftovers)


def make_directory(place: Place) -> None:
    """Makes a local directory and its parents; object stores need none."""
    if place.is_local:
        with _writing(place.uri):
            os.makedirs(place.uri, exist_ok=True)


@contextmanager
def building(place: Place, name: str) -> Iterator[HashingWriter]:
    """A new file in a local directory that is still private; `move_directory` makes it durable."""
    with _writing(place.path(name)), _open_new(place.path(name)) as stream:
        yield HashingWriter(stream)


def move_directory(built: Place, target: Place) -> None:
    """Syncs a local directory to disk, then renames it; `target` must be missing or empty."""
    with _writing(built.uri):
        for directory, _, files in os.walk(built.uri, topdown=False):
            for name in files:
                _sync_file(os.path.join(directory, name))
            _sync_directory(directory)
    with _writing(target.uri):
        os.rename(built.uri, target.uri)
        _sync_directory(os.path.dirname(target.uri))


def remove_directory(place: Place) -> None:
    """Removes a local directory and its subdirectories, except those that hold files."""
    if not place.is_local:
        return
    for directory, _, _ in os.walk(place.uri, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:  # not empty, or a mount point
            continue


def check_can_write(place: Place) -> None:
    """Raises EnvironmentFault if a place cannot be written; creates nothing."""
    if not place.is_local:
        return
    parent = _existing_parent(place.uri)
    if not os.path.isdir(parent):
        raise EnvironmentFault(f"cannot write {place}: {parent} is a file, not a directory; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"cannot write {place}: no permission in {parent}; choose another place or change its rights"
        )


def free_bytes(place: Place) -> int:
    """Free space on a local place's disk for this user."""
    disk = os.statvfs(_existing_parent(place.uri))
    return disk.f_bavail * disk.f_frsize


def _existing_parent(path: str) -> str:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def open_for_locking(path: str) -> int:
    """A file descriptor for flock; creates the file if needed and never truncates it."""
    with _writing(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def overwrite_descriptor(descriptor: int, path: str, data: bytes) -> None:
    """Replaces the content of an open file, not atomically; used for the note in the lock file."""
    with _writing(path):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


class Log:
    """Appends lines to a log file of this process. It is in no digest, so a torn last line is harmless."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self._stream: IO[bytes] | None = None
        self._lines: list[bytes] = []
        self._lock = threading.Lock()  # several threads write to the log

    def append(self, line: bytes) -> None:
        with self._lock:
            self._append(line)

    def _append(self, line: bytes) -> None:
        if not self._place.is_local:  # objects cannot grow: `close` writes the whole log
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
    """Whether S3 rejected a conditional PUT because another one came first; the code is in the cause."""
    answer = getattr(error.__cause__, "response", {})
    return answer.get("Error", {}).get("Code") in {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
