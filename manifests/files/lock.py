"""The write lock of an artifact: exclusive for a run, shared for parts.

On a disk it is a flock, which ends with its process. In an object store it is an object that is created if absent; a
killed run leaves it there, and --break-lock removes it.
"""

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ArtifactBusy
from . import atomic
from .place import Place

LOCK = ".lock"


@contextmanager
def hold_lock(place: Place, *, shared: bool = False, break_lock: bool = False) -> Iterator[None]:
    """Holds an artifact's lock; raises ArtifactBusy at once if another process holds it."""
    if place.is_local:
        with _hold_flock(place, shared):
            yield
    elif shared:  # parts write different units, and object stores have no shared locks
        yield
    else:
        with _hold_lock_object(place, break_lock):
            yield


def is_held(place: Place) -> bool:
    """Whether a run holds the lock now; does not keep it."""
    if not place.is_local:
        return place.exists(LOCK)
    try:
        descriptor = os.open(place.path(LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _hold_flock(place: Place, shared: bool) -> Iterator[None]:
    descriptor = _lock_file(place, shared)
    try:
        atomic.overwrite_descriptor(descriptor, place.path(LOCK), _holder())
        yield
    finally:
        os.close(descriptor)


def _lock_file(place: Place, shared: bool) -> int:
    while True:
        atomic.make_directory(place)
        descriptor = atomic.open_for_locking(place.path(LOCK))
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # A failed planning removes the directory; a lock on a removed file would exclude nobody.
            if os.path.samestat(os.fstat(descriptor), os.stat(place.path(LOCK))):
                return descriptor
        except BlockingIOError:
            busy = _busy(place, os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise ArtifactBusy(busy) from None
        except FileNotFoundError:
            pass
        os.close(descriptor)


@contextmanager
def _hold_lock_object(place: Place, break_lock: bool) -> Iterator[None]:
    if break_lock:
        atomic.remove(place, LOCK)
    mine = _holder()
    while not atomic.create(place, LOCK, mine):
        try:
            holder = place.read(LOCK)
        except FileNotFoundError:  # released in between
            continue
        if holder == mine:  # the answer to the first PUT was lost, and the client tried again
            break
        raise ArtifactBusy(_busy(place, holder) + "; if that run is gone, pass --break-lock")
    try:
        yield
    finally:
        try:
            still_mine = place.read(LOCK) == mine
        except FileNotFoundError:
            still_mine = False
        if still_mine:  # keep the lock of a process that broke ours
            atomic.remove(place, LOCK)


def _holder() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "holder": uuid.uuid4().hex}).encode()


def _busy(place: Place, note: bytes) -> str:
    try:
        holder = json.loads(note)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{place} is held by another run ({who}); wait for it to end or choose another --out"
