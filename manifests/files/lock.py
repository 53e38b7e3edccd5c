"""Who may write an artifact: one run alone, or many parts together.

On a disk the lock is flock's, which dies with its holder, so a killed run leaves nothing to clean. An object store
has only the lock object itself, put if absent; a run that was killed there leaves it, and --break-lock removes it.
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
    """Holds an artifact's lock; raises ArtifactBusy at once, without waiting, where another holds it."""
    if place.is_local:
        with _hold_flock(place, shared):
            yield
    elif shared:  # parts write different units, and a store without flock offers nothing that many could share
        yield
    else:
        with _hold_lock_object(place, break_lock):
            yield


def is_held(place: Place) -> bool:
    """Whether a run holds the lock now, without taking it for longer than the question."""
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
            # A run that could not be planned removes its directory; a lock on a removed file would exclude nobody.
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
            found = place.read(LOCK)
        except FileNotFoundError:  # let go between the two
            continue
        if found == mine:  # the answer to the PUT was lost, and the client's second try met its first
            break
        raise ArtifactBusy(_busy(place, found) + "; if that run is gone, pass --break-lock")
    try:
        yield
    finally:
        try:
            still_mine = place.read(LOCK) == mine
        except FileNotFoundError:
            still_mine = False
        if still_mine:  # somebody who broke the lock meanwhile keeps theirs
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
