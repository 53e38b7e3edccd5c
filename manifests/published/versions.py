"""Artifacts at a URL that teams share: files under the sha256 of their bytes, versions that list them, what is latest.

    files/SHA256          immutable; what two versions have in common is there once
    versions/DIGEST.json  an artifact's files by name, put when all of them are there; DIGEST is of this list
    latest/NUMBER.json    which version was pushed last; put only if absent, so that of two pushes both get a number

Nothing is ever overwritten with other bytes, so no reader and no second writer can meet half of a push.
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
SHORTEST = 12  # digits of a digest that name a version; fewer may be part of a folder's name, as a date is
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHOSEN = re.compile(rf"(.+)@([0-9a-f]{{{SHORTEST},64}})")
FORGOTTEN_S = 24 * 3600.0
_BLOCK = 8 * 2**20
_REMEDY = "restore it from a copy; at a shared URL, remove it there and push the artifact again"


@dataclass(frozen=True, slots=True)
class Version:
    """What was pushed."""

    kind: str
    fingerprint: str
    artifact: str  # sha256 of its artifact.json
    files: Mapping[str, FileDigest]

    @property
    def digest(self) -> str:
        return sealed.digest_of(self.as_json())

    @property
    def bytes(self) -> int:
        return sum(each.size for each in self.files.values())

    def as_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "artifact": self.artifact,
            "files": {name: each.as_json() for name, each in self.files.items()},
        }


@dataclass(frozen=True, slots=True)
class Latest:
    number: int  # 0 where nothing was pushed yet
    version: str
    kind: str


def at_url(text: str) -> tuple[Place, str]:
    """The place of URL or URL@DIGEST, and the digest, of which twelve digits are enough; "" for the latest."""
    chosen = _CHOSEN.fullmatch(text)
    return (place(chosen[1]), chosen[2]) if chosen else (place(text), "")


def file_name(digest: FileDigest) -> str:
    return f"files/{digest.sha256}"


def version_name(digest: str) -> str:
    return f"versions/{digest}.json"


def latest(url: Place) -> Latest:
    """What was pushed last. A pointer without bytes is of a push that was killed as it made it, and counts for none."""
    for name in sorted(url.names("latest"), reverse=True):
        number = name.removeprefix("latest/").removesuffix(".json")
        if not number.isdecimal() or not (data := url.read(name)):
            continue
        value = sealed.unseal(data, url.path(name))
        if not isinstance(value.get("version"), str) or not _SHA256.fullmatch(value["version"]):
            raise CorruptArtifact(f"{url.path(name)} names no version; remove it, or choose one by URL@DIGEST")
        return Latest(int(number), value["version"], str(value.get("kind")))
    return Latest(0, "", "")


def point_to(url: Place, version: Version) -> None:
    """Makes a version the latest one, behind every other that was pushed meanwhile."""
    pointer = sealed.seal({"version": version.digest, "kind": version.kind})
    number = max([0, *_numbers(url)])
    while not atomic.create(url, f"latest/{(number := number + 1):08d}.json", pointer):
        if url.read(f"latest/{number:08d}.json") == pointer:  # the same version; or an answer that was lost
            return


def _numbers(url: Place) -> Iterator[int]:
    """Those that are taken, also by pointers without bytes."""
    for name in url.names("latest"):
        number = name.removeprefix("latest/").removesuffix(".json")
        if number.isdecimal():
            yield int(number)


def resolve_version(url: Place, digest: str) -> str:
    """The whole digest of a version that is named by its first digits, or of the latest."""
    if len(digest) == 64:
        return digest
    if not digest:
        found = latest(url)
        if not found.number:
            raise MissingArtifact(f"{url} holds no version that was pushed whole; check the URL, or push again")
        return found.version
    there = [name.removeprefix("versions/").removesuffix(".json") for name in url.names("versions")]
    fitting = [each for each in there if each.startswith(digest) and _SHA256.fullmatch(each)]
    if len(fitting) != 1:
        many = f"{len(fitting)} versions whose digests begin" if fitting else "no version whose digest begins"
        raise InputError(f"{url} holds {many} with {digest}; it holds {', '.join(sorted(there)) or 'none at all'}")
    return fitting[0]


def read_version(url: Place, digest: str) -> Version:
    """A version's list of files. What it says is believed only after this has looked at it: a name becomes a path."""
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
        files = {name: FileDigest.from_json(each) for name, each in value["files"].items()}
        version = Version(str(value["kind"]), str(value["fingerprint"]), str(value["artifact"]), files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{where} is no list of files ({error!r}); do not trust it") from error
    wrong = _fault(version)
    if wrong is None and version.digest != digest:
        wrong = "it is the list of another version"
    if wrong is not None:
        raise CorruptArtifact(f"{where} is not what a push writes: {wrong}; do not trust it")
    return version


def _fault(version: Version) -> str | None:
    for name, each in version.files.items():
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
            return f"the name {name!r} may lead out of the folder"
        if parts[0] in (LOCK, "log"):
            return f"{name!r} is no file of an artifact"
        if any("/".join(parts[:depth]) in version.files for depth in range(1, len(parts))):
            return f"{name!r} lies in a folder that is a file too"
        if each.size < 0 or not _SHA256.fullmatch(each.sha256):
            return f"{name!r} has no size and sha256"
    if PLAN not in version.files or version.files.get(ARTIFACT, FileDigest("", 0)).sha256 != version.artifact:
        return f"it does not hold the {PLAN} and {ARTIFACT} of the artifact that it names"
    return None


def blocks_of(at: Place, name: str, size: int) -> Iterator[bytes]:
    """A file in pieces, of which no more is read than one byte behind the size that it should have."""
    start = 0
    while start <= size:
        asked = min(_BLOCK, size + 1 - start)
        block = at.read_range(name, start, start + asked)
        yield block
        start += len(block)
        if len(block) < asked:
            return


def whole_file(at: Place, name: str, digest: FileDigest) -> Iterator[bytes]:
    """The pieces of a file; behind the last one CorruptArtifact, where they were not what it should hold."""
    running, size = hashlib.sha256(), 0
    try:
        for block in blocks_of(at, name, digest.size):
            running.update(block)
            size += len(block)
            yield block
    except FileNotFoundError:
        raise CorruptArtifact(f"{at.path(name)} is missing; {_REMEDY}") from None
    if (running.hexdigest(), size) != (digest.sha256, digest.size):
        held = f"more than {digest.size}" if size > digest.size else "other" if size == digest.size else f"only {size}"
        raise CorruptArtifact(f"{at.path(name)} holds {held} bytes where {digest.size} were listed; {_REMEDY}")


Passed = Callable[[int], None]  # is told of so many bytes more, and may raise to stop there


def no_transfer_progress(num_bytes: int) -> None: ...


def send(source: Place, name: str, url: Place, digest: FileDigest, passed: Passed = no_transfer_progress) -> None:
    """Puts a file under its sha256; puts nothing where it holds other bytes."""
    blocks = _report_blocks(whole_file(source, name, digest), passed)
    if digest.size < _BLOCK:  # one request, where a stream takes three
        atomic.write(url, file_name(digest), b"".join(blocks))
        return
    with atomic.replacing(url, file_name(digest)) as stream:
        for block in blocks:
            stream.write(block)


def fetch(url: Place, digest: FileDigest, target: Place, name: str, passed: Passed = no_transfer_progress) -> None:
    """Writes a file of a URL into a folder that is being built."""
    with atomic.building(target, name) as stream:
        for block in _report_blocks(whole_file(url, file_name(digest), digest), passed):
            stream.write(block)


def _report_blocks(blocks: Iterator[bytes], passed: Passed) -> Iterator[bytes]:
    for block in blocks:
        passed(len(block))
        yield block


def remove_leftovers(url: Place) -> None:
    """Removes what pushes to a folder had half written when they were killed: what nobody has written to for a day.

    A living push writes to its files every moment. A lock would tell at once, but not of all machines that share a
    folder over a network; and a push that slept for a day ends with an error, and does what is missing when run again.
    """
    if not url.is_local:  # a store shows no half of a file
        return
    before = time.time() - FORGOTTEN_S
    for name in [*url.names("files"), *url.names("versions")]:
        found = url.stat(name) if name.endswith(atomic.TEMPORARY_SUFFIX) else None
        if found is not None and found.modified < before:
            try:
                atomic.remove(url, name)
            except EnvironmentFault:  # another user's, which only takes up room
                continue
