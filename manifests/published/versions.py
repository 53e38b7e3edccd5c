"""Artifacts at a shared URL: files by their sha256, versions that list files, and a pointer to the latest version.

    files/SHA256          immutable; stored once for all versions
    versions/DIGEST.json  an artifact's files by name, written after all of them; DIGEST is the sha256 of this list
    latest/NUMBER.json    the version pushed last; created only if absent, so parallel pushes get different numbers

Nothing is ever overwritten with other bytes, so nobody sees half of a push.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..artifact.artifact import ARTIFACT
from ..artifact.plan import PLAN
from ..errors import ConfigError, CorruptArtifact, EnvironmentFault, InputError, MissingArtifact
from ..files import atomic, sealed
from ..files.digests import FileDigest
from ..files.lock import LOCK
from ..files.place import Place, place
from ..files.sealed import Json

FORMAT = 1
SHORTEST = 12  # least digits of a digest in URL@DIGEST; fewer may be part of a folder name, such as a date
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHOSEN = re.compile(rf"(.+)@([0-9a-f]{{{SHORTEST},64}})")
FORGOTTEN_S = 24 * 3600.0
_BLOCK = 8 * 2**20
_REMEDY = "restore it from a copy; at a shared URL, remove it there and push the artifact again"


@dataclass(frozen=True, slots=True)
class Version:
    """One pushed artifact and its files."""

    kind: str
    fingerprint: str
    artifact: str  # sha256 of its artifact.json
    files: Mapping[str, FileDigest]

    @property
    def digest(self) -> str:
        return sealed.digest_of(self.as_json())

    @property
    def bytes(self) -> int:
        return sum(digest.size for digest in self.files.values())

    def as_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "artifact": self.artifact,
            "files": {name: digest.as_json() for name, digest in self.files.items()},
        }


@dataclass(frozen=True, slots=True)
class Latest:
    number: int  # 0 if nothing was pushed yet
    version: str
    kind: str


def at_url(text: str) -> tuple[Place, str]:
    """The place of URL or URL@DIGEST, and the digest (at least twelve digits), or "" for the latest."""
    chosen = _CHOSEN.fullmatch(text)
    return (place(chosen[1]), chosen[2]) if chosen else (place(text), "")


def file_name(digest: FileDigest) -> str:
    return f"files/{digest.sha256}"


def version_name(digest: str) -> str:
    return f"versions/{digest}.json"


def latest(url: Place) -> Latest:
    """The version pushed last. Skips an empty pointer, which a killed push left."""
    for number, name in sorted(_pointers(url), reverse=True):
        if not (data := url.read(name)):
            continue
        value = sealed.unseal(data, url.path(name))
        if not isinstance(value.get("version"), str) or not _SHA256.fullmatch(value["version"]):
            raise CorruptArtifact(
                f"{url.path(name)} is not a pointer to a version; remove it, or choose a version by URL@DIGEST"
            )
        return Latest(number, value["version"], str(value.get("kind")))
    return Latest(0, "", "")


def point_to(url: Place, version: Version) -> None:
    """Makes a version the latest, after any others pushed meanwhile."""
    pointer = sealed.seal({"version": version.digest, "kind": version.kind})
    number = max([0, *(taken for taken, _ in _pointers(url))])
    while not atomic.create(url, f"latest/{(number := number + 1):08d}.json", pointer):
        if url.read(f"latest/{number:08d}.json") == pointer:  # the same version, or our own write whose answer was lost
            return


def _pointers(url: Place) -> Iterator[tuple[int, str]]:
    """Number and file name of every pointer, including empty ones."""
    for name in url.names("latest"):
        number = name.removeprefix("latest/").removesuffix(".json")
        if number.isdecimal():
            yield int(number), name


def resolve_version(url: Place, digest: str) -> str:
    """The full digest of the version that starts with `digest`, or of the latest."""
    if len(digest) == 64:
        return digest
    if not digest:
        newest = latest(url)
        if not newest.number:
            raise MissingArtifact(f"{url} holds no version that was pushed whole; check the URL, or push again")
        return newest.version
    stored = [name.removeprefix("versions/").removesuffix(".json") for name in url.names("versions")]
    matching = [name for name in stored if name.startswith(digest) and _SHA256.fullmatch(name)]
    if len(matching) != 1:
        many = f"{len(matching)} versions whose digests begin" if matching else "no version whose digest begins"
        raise InputError(f"{url} holds {many} with {digest}; choose one of {', '.join(sorted(stored)) or 'none'}")
    return matching[0]


def read_version(url: Place, digest: str) -> Version:
    """A version's list of files, checked because its names become paths."""
    where = url.path(version_name(digest))
    try:
        value = sealed.read(url, version_name(digest))
    except FileNotFoundError:
        raise MissingArtifact(f"{url} holds no version {digest}; check the digest, or pull the latest") from None
    if value.get("format") != FORMAT:
        raise ConfigError(
            f"{where} has format {value.get('format')!r} and this maskmill reads {FORMAT}; use a newer one"
        )
    try:
        files = {name: FileDigest.from_json(digests) for name, digests in value["files"].items()}
        version = Version(str(value["kind"]), str(value["fingerprint"]), str(value["artifact"]), files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{where} is not a list of files ({error!r}); do not trust it") from error
    wrong = _fault(version)
    if wrong is None and version.digest != digest:
        wrong = "it is the list of another version"
    if wrong is not None:
        raise CorruptArtifact(f"{where} is not what a push writes: {wrong}; do not trust it")
    return version


def _fault(version: Version) -> str | None:
    for name, digest in version.files.items():
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
            return f"the name {name!r} may point outside the folder"
        if parts[0] in (LOCK, "log"):
            return f"{name!r} is not a file of an artifact"
        if any("/".join(parts[:depth]) in version.files for depth in range(1, len(parts))):
            return f"{name!r} lies in a folder that is also listed as a file"
        if digest.size < 0 or not _SHA256.fullmatch(digest.sha256):
            return f"{name!r} has no size and sha256"
    if PLAN not in version.files or version.files.get(ARTIFACT, FileDigest("", 0)).sha256 != version.artifact:
        return f"it does not hold the {PLAN} and {ARTIFACT} of the artifact that it names"
    return None


def blocks_of(at: Place, name: str, size: int) -> Iterator[bytes]:
    """A file in blocks; reads at most one byte beyond its expected size."""
    start = 0
    while start <= size:
        length = min(_BLOCK, size + 1 - start)
        block = at.read_range(name, start, start + length)
        yield block
        start += len(block)
        if len(block) < length:
            return


def whole_file(at: Place, name: str, digest: FileDigest) -> Iterator[bytes]:
    """The blocks of a file; raises CorruptArtifact after the last one if they do not match the digest."""
    running, size = hashlib.sha256(), 0
    try:
        for block in blocks_of(at, name, digest.size):
            running.update(block)
            size += len(block)
            yield block
    except FileNotFoundError:
        raise CorruptArtifact(f"{at.path(name)} is missing; {_REMEDY}") from None
    if (running.hexdigest(), size) != (digest.sha256, digest.size):
        amount = (
            f"more than {digest.size}" if size > digest.size else "other" if size == digest.size else f"only {size}"
        )
        raise CorruptArtifact(f"{at.path(name)} holds {amount} bytes, expected the listed {digest.size}; {_REMEDY}")


Passed = Callable[[int], None]  # receives the number of new bytes; may raise to stop


def no_transfer_progress(num_bytes: int) -> None: ...


def send(source: Place, name: str, url: Place, digest: FileDigest, passed: Passed = no_transfer_progress) -> None:
    """Uploads a file under its sha256, unless its bytes do not match."""
    blocks = _report_blocks(whole_file(source, name, digest), passed)
    if digest.size < _BLOCK:  # one request; a stream takes three
        atomic.write(url, file_name(digest), b"".join(blocks))
        return
    with atomic.replacing(url, file_name(digest)) as stream:
        for block in blocks:
            stream.write(block)


def fetch(url: Place, digest: FileDigest, target: Place, name: str, passed: Passed = no_transfer_progress) -> None:
    """Downloads a file into a folder that is being built."""
    with atomic.building(target, name) as stream:
        for block in _report_blocks(whole_file(url, file_name(digest), digest), passed):
            stream.write(block)


def _report_blocks(blocks: Iterator[bytes], passed: Passed) -> Iterator[bytes]:
    for block in blocks:
        passed(len(block))
        yield block


def remove_leftovers(url: Place) -> None:
    """Removes half-written files of killed pushes: temporaries that were not written to for a day.

    A live push keeps writing to its files. A lock would not work on all network file systems. A push that slept for a
    day fails and can be run again.
    """
    if not url.is_local:  # object stores have no partial files
        return
    oldest = time.time() - FORGOTTEN_S
    for name in [*url.names("files"), *url.names("versions")]:
        state = url.stat(name) if name.endswith(atomic.TEMPORARY_SUFFIX) else None
        if state is not None and state.modified < oldest:
            try:
                atomic.remove(url, name)
            except EnvironmentFault:  # another user's; it only takes up space
                continue
