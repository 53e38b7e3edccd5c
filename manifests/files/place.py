"""A directory on a local disk or in an object store, with one set of read methods. Only atomic.py writes.

`file://` is local; other schemes go through fsspec.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import ConfigError, EnvironmentFault


@dataclass(frozen=True, slots=True)
class Place:
    """One directory. It holds only a string, so it is cheap to compare and to send to a worker."""

    uri: str

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def is_shared(self) -> bool:
        """Whether other processes see the same files; `memory://` belongs to one process."""
        return not self.uri.startswith("memory://")

    @property
    def is_for_threads(self) -> bool:
        """Whether several threads may use it at once: true of fsspec's asynchronous clients (object stores, HTTP),
        which work in one thread of their own; some other clients share one connection."""
        return self.is_local or bool(filesystem_of(self.uri).async_impl)

    def __str__(self) -> str:
        return self.uri

    def path(self, name: str = "") -> str:
        """The full path or URL of a file in this place."""
        return f"{self.uri.rstrip('/')}/{name}" if name else self.uri

    def join(self, name: str) -> "Place":
        return Place(self.path(name))

    def open(self, name: str) -> io.IOBase:
        """A file opened for reading. Raises FileNotFoundError."""
        with reading(self.path(name)):
            if self.is_local:
                return open(self.path(name), "rb")
            filesystem = filesystem_of(self.uri)
            return filesystem.open(key_of(self.path(name)), "rb")

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        with reading(self.path(name)):
            if self.is_local:
                with open(self.path(name), "rb") as stream:
                    return stream.read()
            return filesystem_of(self.uri).cat_file(key_of(self.path(name)))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file; fewer if it ends earlier."""
        with reading(self.path(name)):
            if self.is_local:
                with open(self.path(name), "rb") as stream:
                    stream.seek(start)
                    return stream.read(stop - start)
            try:
                return filesystem_of(self.uri).cat_file(key_of(self.path(name)), start=start, end=stop)
            except OSError:  # S3 refuses a range beyond the end; a disk returns no bytes
                state = self.stat(name)
                if state is None or state.size > start:
                    raise
                return b""

    def stat(self, name: str = "") -> "FileStat | None":
        """Size and time of change, or None if there is no such file."""
        try:
            with reading(self.path(name)):
                if self.is_local:
                    state = os.stat(self.path(name))
                    return FileStat(state.st_size, state.st_mtime)
                info = filesystem_of(self.uri).info(key_of(self.path(name)))
                return FileStat(int(info.get("size") or 0), _modification_time(info))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, name: str = "") -> bool:
        return self.stat(name) is not None

    def names(self, under: str = "") -> Iterator[str]:
        """Every file below a directory, as sorted names relative to this place; none if it does not exist."""
        with reading(self.path(under)):
            if self.is_local:
                yield from _local_names(self.uri, under)
                return
            prefix = key_of(self.uri).rstrip("/") + "/"
            try:
                objects = filesystem_of(self.uri).find(key_of(self.path(under)))
            except FileNotFoundError:
                return
            # Web consoles create a "folder" as an empty object whose key ends in a slash.
            keys = (key for key in objects if key.startswith(prefix) and not key.endswith("/"))
            yield from sorted(key.removeprefix(prefix) for key in keys)

    def sizes(self, under: str = "") -> dict[str, int]:
        """Name → size of every file below a directory, with names as in `names`; links are not followed."""
        if self.is_local:
            return dict(_local_sizes(self, under))
        with reading(self.path(under)):
            prefix = key_of(self.uri).rstrip("/") + "/"
            try:
                objects = filesystem_of(self.uri).find(key_of(self.path(under)), detail=True)
            except FileNotFoundError:
                return {}
            keys = sorted(key for key in objects if key.startswith(prefix) and not key.endswith("/"))
            return {key.removeprefix(prefix): int(objects[key].get("size") or 0) for key in keys}


@dataclass(frozen=True, slots=True)
class FileStat:
    size: int
    modified: float  # seconds since the epoch; infinity if unknown


def place(uri: str | os.PathLike[str]) -> Place:
    """The place of a user's path or URL; relative paths become absolute here."""
    text = os.fspath(uri)
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://"))
    scheme, separator, rest = text.partition("://")
    if separator and not scheme.startswith("/"):
        if not rest.strip("/"):
            raise ConfigError(f"{text} names no bucket or directory; write one after {scheme}://")
        return Place(text.rstrip("/"))
    return Place(str(Path(os.path.expanduser(text)).absolute()))  # Path.expanduser fails on ~NOBODY


def split(uri: str | os.PathLike[str]) -> tuple[Place, str]:
    """The directory of a file, and its name in it."""
    directory, _, name = place(uri).uri.rpartition("/")
    return Place(directory or "/"), name


@cache
def _filesystem(protocol_and_host: str, process: int) -> Any:
    """One client per process: its threads and sockets do not survive a fork."""
    import fsspec
    from fsspec.config import conf

    options: dict[str, Any] = {"use_listings_cache": False}  # a cached listing hides files of other processes
    is_s3 = protocol_and_host.startswith(("s3://", "s3a://"))
    if is_s3:
        options["config_kwargs"] = {**_S3_PATIENCE, **conf.get("s3", {}).get("config_kwargs", {})}
    try:
        filesystem, _ = fsspec.core.url_to_fs(protocol_and_host, **options)
    except (ValueError, ImportError) as error:  # no such protocol, or its package is not installed
        raise ConfigError(
            f"cannot reach {protocol_and_host}: {error}; check the URL or install what it needs"
        ) from error
    if is_s3:
        filesystem.retries = 2  # on top of the client's own, for an answer that breaks off
    return filesystem


# By default each request to a host that accepts and never answers takes six minutes.
_S3_PATIENCE = {"connect_timeout": 5, "read_timeout": 8, "retries": {"mode": "standard", "total_max_attempts": 3}}


def filesystem_of(uri: str) -> Any:
    """The fsspec filesystem of a URL, one per scheme and host in each process."""
    scheme, _, rest = uri.partition("://")
    return _filesystem(f"{scheme}://{rest.partition('/')[0]}", os.getpid())


def key_of(uri: str) -> str:
    """The filesystem's name for a URL: bucket and key for S3."""
    return filesystem_of(uri)._strip_protocol(uri)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns errors of disk, network and permissions into EnvironmentFault; FileNotFoundError passes through."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, EnvironmentFault):
        raise
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise EnvironmentFault(
            f"cannot read {path}: {why}; check permissions and that the disk or host answers"
        ) from error
    except Exception as error:
        if "://" not in path or not _is_from_client(error):
            raise
        raise EnvironmentFault(
            f"cannot read {path}: {error}; check the URL, the credentials and the network"
        ) from error


def _is_from_client(error: Exception) -> bool:
    """Whether an error comes from an object store's client; these have no common base class."""
    return type(error).__module__.partition(".")[0] in {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "s3fs"}


def _modification_time(info: dict[str, Any]) -> float:
    value = info.get("LastModified") or info.get("mtime") or info.get("modified") or info.get("created")
    if value is None:
        return float("inf")
    return float(value) if isinstance(value, int | float) else float(value.timestamp())


def _local_names(root: str, under: str) -> Iterator[str]:
    """Depth first, sorted, without following links; directories that vanish meanwhile count as empty."""
    directory = os.path.join(root, under) if under else root
    try:
        with reading(directory), os.scandir(directory) as entries:
            children = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, is_dir in children:
        inner = f"{under}/{name}" if under else name
        if is_dir:
            yield from _local_names(root, inner)
        else:
            yield inner


def _local_sizes(at: Place, under: str) -> Iterator[tuple[str, int]]:
    for name in at.names(under):
        try:
            with reading(at.path(name)):
                yield name, os.lstat(at.path(name)).st_size
        except (FileNotFoundError, NotADirectoryError):  # vanished meanwhile
            continue
