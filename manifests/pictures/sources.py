"""Reads the bytes of a picture or mask from a folder, a URL or a tar file.

A uri is relative to the dataset's root, a URL, or `tar://MEMBER::TAR` (fsspec's chained form), where TAR is relative,
absolute or a URL. A fault of one file fails its row (RowFailed); a fault of disk, network or bucket stops the run
(EnvironmentFault).
"""

import errno
import io
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from ..errors import EnvironmentFault, InputError, Reason, RowFailed
from ..files.place import FileStat, Place, place, reading, split
from .tars import member_name, tar_index

TAR_SCHEME = "tar://"


@dataclass(frozen=True, slots=True)
class Source:
    """The file behind a uri."""

    path: str  # absolute path or URL of the file, or of the tar that holds it
    member: str = ""  # name inside the tar; "" for a plain file


def resolve(root: str, uri: str) -> Source:
    """Resolves a uri against a dataset's root; the row fails as outside_root if it leaves the root."""
    if not uri.startswith(TAR_SCHEME):
        return Source(_path_of(root, uri))
    member, _, archive = uri.removeprefix(TAR_SCHEME).rpartition("::")
    if not member or not archive:
        raise RowFailed(Reason.MISSING, f"{uri!a} should be tar://MEMBER::TAR")
    return Source(place(archive).uri if archive.startswith("/") else _path_of(root, archive), member_name(member))


def read_source(root: str, uri: str) -> bytes:
    """The bytes of a picture or mask."""
    source = resolve(root, uri)
    with _reading_row(source.path):
        if source.member:
            return _read_member(source)
        return Place(source.path).read("") if "://" in source.path else _read_regular(source.path)


def stat_source(root: str, uri: str) -> FileStat | None:
    """Size and time of change (that of the tar for a member), or None if there is no such file."""
    source = resolve(root, uri)
    try:
        with _reading_row(source.path):
            if not source.member:
                return Place(source.path).stat()
            index = tar_index(source.path)
    except RowFailed as failed:
        if failed.reason is Reason.MISSING:
            return None
        raise
    span = index.members.get(source.member)
    return FileStat(span[1], index.stat.modified) if span else None


def tar_uri(member: str, archive: str) -> str:
    """The uri of a picture inside a tar."""
    return f"{TAR_SCHEME}{member}::{archive}"


def path_fault(relative: str) -> str:
    """Why a path cannot lie inside a dataset, as the end of a sentence; "" if it can."""
    if not relative:
        return "is empty"
    if "\0" in relative:
        return "holds a NUL byte"
    if relative.startswith("/"):
        return "is absolute"
    if ".." in relative.split("/"):
        return "climbs out with '..'"
    try:
        relative.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


@contextmanager
def open_user_file(uri: str, what: str) -> Iterator[io.IOBase]:
    """Opens a file that the user named; raises InputError if it does not exist."""
    folder, name = split(uri)
    try:
        stream = folder.open(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"there is no {what} {uri}; check the path") from error
    except EnvironmentFault as fault:
        if isinstance(fault.__cause__, IsADirectoryError):
            raise InputError(f"{uri} is a folder, expected a {what}; name the file in it") from fault
        raise
    with stream, reading(uri):
        yield stream


def read_user_lines(uri: str, what: str) -> Iterator[tuple[int, str]]:
    """Number and text of every non-empty line of a file that the user named."""
    with open_user_file(uri, what) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{uri} is not a text file in UTF-8: {error}; give a list of ids") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _path_of(root: str, uri: str) -> str:
    if "://" in uri:
        fault = "holds a NUL byte" if "\0" in place(uri).uri else ""
        path = place(uri).uri
    else:
        fault = path_fault(uri)
        path = Place(root).path(uri)
        if not fault and Place(root).is_local and _links_out(root, uri):
            fault = "is a link that leads out of the dataset"
    if fault:
        raise RowFailed(Reason.OUTSIDE_ROOT, f"{uri!a} {fault}")
    return path


def _links_out(root: str, relative: str) -> bool:
    """Looks for links in the path first: links are rare, and resolving costs one call per folder."""
    folder = relative.rpartition("/")[0]
    if not os.path.islink(f"{root}/{relative}") and not (folder and _has_link(root, folder)):
        return False
    target, home = os.path.realpath(posixpath.join(root, relative)), os.path.realpath(root)
    return os.path.commonpath([target, home]) != home


@lru_cache(maxsize=4096)  # checking all parents of a picture costs as much as reading it
def _has_link(root: str, folder: str) -> bool:
    inner = root
    for part in folder.split("/"):
        inner = posixpath.join(inner, part)
        if os.path.islink(inner):
            return True
    return False


@contextmanager
def _reading_row(path: str) -> Iterator[None]:
    try:
        with reading(path):
            yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RowFailed(Reason.MISSING, path) from error
    except InputError as error:  # a fault of the tar that holds it
        raise RowFailed(Reason.UNREADABLE, str(error)) from error
    except EnvironmentFault as fault:
        if "://" not in path and _is_of_one_file(fault.__cause__):
            raise RowFailed(Reason.UNREADABLE, f"{path}: {fault.__cause__}") from fault
        raise


def _is_of_one_file(cause: BaseException | None) -> bool:
    if isinstance(cause, PermissionError | IsADirectoryError):
        return True
    return isinstance(cause, OSError) and cause.errno in {errno.ELOOP, errno.ENAMETOOLONG}


def _read_regular(path: str) -> bytes:
    """Reads a local file in few system calls, because each one may yield to another thread."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would block
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise RowFailed(Reason.UNREADABLE, f"{path} is not a regular file")
        data = os.read(descriptor, state.st_size)
        while len(data) < state.st_size and (more := os.read(descriptor, state.st_size - len(data))):
            data += more  # one call reads at most 2 GB
        return data
    finally:
        os.close(descriptor)


def _read_member(source: Source) -> bytes:
    span = tar_index(source.path).members.get(source.member)
    if span is None:
        raise RowFailed(Reason.MISSING, f"{source.path} has no member {source.member!a}")
    start, size = span
    content = Place(source.path).read_range("", start, start + size) if size else b""
    if len(content) != size:
        raise RowFailed(Reason.UNREADABLE, f"{source.path} ends inside {source.member!a}")
    return content
