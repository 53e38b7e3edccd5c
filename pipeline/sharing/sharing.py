"""Hand artifacts from team to team through a folder or bucket that both can reach (see published/versions.py)."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.artifact.artifact import ARTIFACT, Artifact, open_artifact
from ...manifests.artifact.vouched import read_file_digests
from ...manifests.errors import ConfigError, CorruptArtifact, EnvironmentFault, MissingArtifact, StaleArtifact
from ...manifests.files import atomic, sealed
from ...manifests.files.digests import FileDigest, fault
from ...manifests.files.lock import LOCK, hold_lock
from ...manifests.files.place import Place, place
from ...manifests.published.versions import (
    Version,
    at_url,
    fetch,
    file_name,
    latest,
    point_to,
    read_version,
    remove_leftovers,
    resolve_version,
    send,
    version_name,
)
from ..answers.verify import verify
from ..running.progress import moving
from .at_once import THREADS, run_in_threads


@dataclass(frozen=True, slots=True)
class Shared:
    """What a push or a pull has done."""

    kind: str
    version: str
    at: str  # the URL of a push, the folder of a pull
    files: int
    bytes: int
    moved_files: int  # those that were not there
    moved_bytes: int
    seconds: float


def push(uri: str, to: str, is_shown: bool = False) -> Shared:
    """Puts a finished artifact at a URL: the files that it lacks, several at once, then the list of all, then what says
    it is latest."""
    began = time.monotonic()
    url, chosen = at_url(to)
    if chosen:
        raise ConfigError(f"{to} names a version that was pushed; push to {url}, and the version gets its own digest")
    artifact = open_artifact(uri)
    _refuse_url(url, artifact)
    version = _version(artifact)
    remove_leftovers(url)
    there = url.sizes("files")
    missing = {
        each.sha256: (name, each) for name, each in version.files.items() if there.get(file_name(each)) != each.size
    }
    sent = sum(each.size for _, each in missing.values())
    try:
        with moving("push", sent, is_shown) as moved:
            run_in_threads(
                lambda named, passed: send(artifact.place, named[0], url, named[1], passed),
                missing.values(),
                moved,
                _threads(artifact.place, url),
            )
    except CorruptArtifact:
        _refuse_changed(artifact)  # which says more than that its files are not what they were
        raise
    _refuse_changed(artifact)
    _publish(url, version)
    return _summarize(version, url, len(missing), sent, began)


def pull(source: str, into: str, is_shown: bool = False) -> Shared:
    """Makes a folder of the version that URL@DIGEST names, or of the latest at URL: all of it and checked, or nothing.

    What has come before a pull was stopped stays beside the folder, and is not fetched again. A folder that holds this
    version already is checked and left as it is.
    """
    began = time.monotonic()
    url, chosen = at_url(source)
    if "://" in into and not into.startswith("file://"):
        raise ConfigError(f"{into} is a URL, and a pull makes a folder of this machine; give a path")
    target = Place(os.path.realpath(place(into).uri))
    version = read_version(url, resolve_version(url, chosen))
    if _holds(target, version):
        atomic.remove(target, LOCK)  # of a pull that was stopped by a signal as it ended
        _check_held(target, version)
        return _summarize(version, target, 0, 0, began)
    _refuse_filled(target)
    parent, _, name = target.uri.rpartition("/")
    part = Place(f"{parent}/.{name}.maskmill-pull")
    with hold_lock(part):
        try:
            missing = _missing(part, version)
            to_come = sum(each.size for each in missing.values())
            _refuse_full(part, to_come)
            with moving("pull", to_come, is_shown) as moved:
                run_in_threads(
                    lambda named, passed: fetch(url, named[1], part, named[0], passed),
                    missing.items(),
                    moved,
                    _threads(url),
                )
            _check(part, version, url)
            _refuse_filled(target)  # once more, since this may have taken hours
            atomic.move_directory(part, target)
            atomic.remove(target, LOCK)
        except BaseException:
            _keep_partial(part)
            raise
    return _summarize(version, target, len(missing), to_come, began)


def _threads(*places: Place) -> int:
    return THREADS if all(each.is_for_threads for each in places) else 1


def _summarize(version: Version, at: Place, files: int, moved: int, began: float) -> Shared:
    seconds = time.monotonic() - began
    return Shared(version.kind, version.digest, at.uri, len(version.files), version.bytes, files, moved, seconds)


def _refuse_url(url: Place, artifact: Artifact) -> None:
    if f"{url.uri}/".startswith(f"{artifact.place.uri}/"):
        raise ConfigError(f"{url} lies in the artifact that is to be pushed; push to a place of its own")
    atomic.check_can_write(url)
    before = latest(url)
    if before.number and before.kind != artifact.plan.kind:
        raise ConfigError(
            f"{url} holds versions of {before.kind} and {artifact.place} is {artifact.plan.kind}; "
            "push it to a place of its own"
        )


def _version(artifact: Artifact) -> Version:
    try:
        files = read_file_digests(artifact)
    except (CorruptArtifact, FileNotFoundError):
        _refuse_changed(artifact)
        raise
    return Version(artifact.plan.kind, artifact.plan.fingerprint, artifact.digest, files)


def _refuse_changed(artifact: Artifact) -> None:
    """What was read of an artifact that another run has rewritten meanwhile belongs together no more."""
    try:
        now = FileDigest.of(artifact.place.read(ARTIFACT)).sha256
    except FileNotFoundError:
        now = ""
    if now != artifact.digest:
        raise StaleArtifact(
            f"{artifact.place} changed while it was pushed, so no version was made of it; "
            "wait for its run to end and push again"
        )


def _publish(url: Place, version: Version) -> None:
    """The list, once all its files are there, and the pointer behind it."""
    try:
        read_version(url, version.digest)
    except (MissingArtifact, CorruptArtifact):
        sealed.write(url, version_name(version.digest), version.as_json())
    if latest(url).version != version.digest:
        point_to(url, version)


def _holds(target: Place, version: Version) -> bool:
    try:
        return FileDigest.of(target.read(ARTIFACT)).sha256 == version.artifact
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_held(target: Place, version: Version) -> None:
    if faults := verify(target.uri).faults:
        raise CorruptArtifact(
            f"{target} holds version {version.digest}, damaged ({faults[0]}); pull into a folder that is not there"
        )


def _refuse_filled(target: Place) -> None:
    if target.exists() and (not os.path.isdir(target.uri) or os.listdir(target.uri)):
        raise ConfigError(f"{target} is not empty; pull into a folder that is empty or not there")
    atomic.check_can_write(target)


def _missing(part: Place, version: Version) -> Mapping[str, FileDigest]:
    """The files that have not come yet. What is there and belongs to another version, or is half of a file, goes."""
    there = set(part.names()) - {LOCK}
    whole = {name for name in there & version.files.keys() if fault(part, name, version.files[name]) is None}
    atomic.discard(part, sorted(there - whole))
    atomic.remove_directory(part)  # the empty ones in it; itself holds the lock
    return {name: each for name, each in version.files.items() if name not in whole}


def _refuse_full(part: Place, needed: int) -> None:
    free = atomic.free_bytes(part)
    if needed > free:
        raise EnvironmentFault(f"{needed:,} bytes are to come to {part.uri} and {free:,} are free; free space there")


def _check(part: Place, version: Version, url: Place) -> None:
    """That the folder is the artifact whose files were listed, and nothing else lies in it."""
    found = verify(part.uri)
    wrong = [*found.faults, *(f"{name} belongs to nothing" for name in found.strangers)]
    if not wrong and (open_artifact(part).digest, open_artifact(part).plan.kind) == (version.artifact, version.kind):
        return
    atomic.discard(part, [name for name in part.names() if name != LOCK])
    raise CorruptArtifact(
        f"version {version.digest} at {url} is no whole {version.kind} ({wrong[0] if wrong else 'another artifact'}); "
        "do not trust it, and ask who pushed it"
    )


def _keep_partial(part: Place) -> None:
    """For the same command to go on from; nothing where nothing came."""
    atomic.remove_directory(part)
    if set(part.names()) <= {LOCK}:
        atomic.remove(part, LOCK)
        atomic.remove_directory(part)
