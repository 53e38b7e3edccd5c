"""Pushes and pulls artifacts through a folder or bucket that two teams can reach (see published/versions.py)."""

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
from ..running.progress import transfer_bar
from .at_once import THREADS, run_in_threads


@dataclass(frozen=True, slots=True)
class Shared:
    kind: str
    version: str
    at: str  # the URL of a push, the folder of a pull
    files: int
    bytes: int
    moved_files: int  # files that were missing
    moved_bytes: int
    seconds: float


def push(uri: str, to: str, is_shown: bool = False) -> Shared:
    """Uploads a finished artifact: the missing files, several at once, then the list of all files, then the pointer to
    the latest version."""
    began = time.monotonic()
    url, chosen = at_url(to)
    if chosen:
        raise ConfigError(f"{to} names an existing version; push to {url}, which creates a version with its own digest")
    artifact = open_artifact(uri)
    _refuse_url(url, artifact)
    version = _version(artifact)
    remove_leftovers(url)
    sizes = url.sizes("files")
    missing = {
        file.sha256: (name, file) for name, file in version.files.items() if sizes.get(file_name(file)) != file.size
    }
    sent = sum(file.size for _, file in missing.values())
    try:
        with transfer_bar("push", sent, is_shown) as moved:
            run_in_threads(
                lambda named, passed: send(artifact.place, named[0], url, named[1], passed),
                missing.values(),
                moved,
                _threads(artifact.place, url),
            )
    except CorruptArtifact:
        _refuse_changed(artifact)  # a clearer error
        raise
    _refuse_changed(artifact)
    _publish(url, version)
    return _summarize(version, url, len(missing), sent, began)


def pull(source: str, into: str, is_shown: bool = False) -> Shared:
    """Downloads the version that URL@DIGEST names, or the latest at URL. The folder appears only once all is checked.

    Files of a stopped pull are kept beside the folder and are not fetched again. If the folder already holds this
    version, it is only checked.
    """
    began = time.monotonic()
    url, chosen = at_url(source)
    if "://" in into and not into.startswith("file://"):
        raise ConfigError(f"{into} is a URL, but pull writes a local folder; give a path")
    target = Place(os.path.realpath(place(into).uri))
    version = read_version(url, resolve_version(url, chosen))
    if _holds(target, version):
        atomic.remove(target, LOCK)  # left by a pull that was stopped as it ended
        _check_held(target, version)
        return _summarize(version, target, 0, 0, began)
    _refuse_filled(target)
    parent, _, name = target.uri.rpartition("/")
    part = Place(f"{parent}/.{name}.maskmill-pull")
    with hold_lock(part):
        try:
            missing = _missing(part, version)
            to_come = sum(file.size for file in missing.values())
            _refuse_full(part, to_come)
            with transfer_bar("pull", to_come, is_shown) as moved:
                run_in_threads(
                    lambda named, passed: fetch(url, named[1], part, named[0], passed),
                    missing.items(),
                    moved,
                    _threads(url),
                )
            _check(part, version, url)
            _refuse_filled(target)  # again, since the transfer may have taken hours
            atomic.move_directory(part, target)
            atomic.remove(target, LOCK)
        except BaseException:
            _keep_partial(part)
            raise
    return _summarize(version, target, len(missing), to_come, began)


def _threads(*places: Place) -> int:
    return THREADS if all(where.is_for_threads for where in places) else 1


def _summarize(version: Version, at: Place, files: int, moved: int, began: float) -> Shared:
    seconds = time.monotonic() - began
    return Shared(version.kind, version.digest, at.uri, len(version.files), version.bytes, files, moved, seconds)


def _refuse_url(url: Place, artifact: Artifact) -> None:
    if f"{url.uri}/".startswith(f"{artifact.place.uri}/"):
        raise ConfigError(f"{url} is inside the artifact that is pushed; push to another place")
    atomic.check_can_write(url)
    before = latest(url)
    if before.number and before.kind != artifact.plan.kind:
        raise ConfigError(
            f"{url} holds versions of {before.kind} and {artifact.place} is {artifact.plan.kind}; "
            "push it to another place"
        )


def _version(artifact: Artifact) -> Version:
    try:
        files = read_file_digests(artifact)
    except (CorruptArtifact, FileNotFoundError):
        _refuse_changed(artifact)
        raise
    return Version(artifact.plan.kind, artifact.plan.fingerprint, artifact.digest, files)


def _refuse_changed(artifact: Artifact) -> None:
    """Refuses an artifact that another run has rewritten since it was opened."""
    try:
        now = FileDigest.of(artifact.place.read(ARTIFACT)).sha256
    except FileNotFoundError:
        now = ""
    if now != artifact.digest:
        raise StaleArtifact(
            f"{artifact.place} changed while it was pushed, so no version was created; "
            "wait for its run to end and push again"
        )


def _publish(url: Place, version: Version) -> None:
    """Writes the list of files, once all of them are there, and then the pointer to it."""
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
        raise CorruptArtifact(f"{target} holds version {version.digest}, damaged ({faults[0]}); pull into a new folder")


def _refuse_filled(target: Place) -> None:
    if target.exists() and (not os.path.isdir(target.uri) or os.listdir(target.uri)):
        raise ConfigError(f"{target} is not empty; pull into a folder that is empty or new")
    atomic.check_can_write(target)


def _missing(part: Place, version: Version) -> Mapping[str, FileDigest]:
    """The files still to fetch. Removes partial files and files of other versions."""
    present = set(part.names()) - {LOCK}
    whole = {name for name in present & version.files.keys() if fault(part, name, version.files[name]) is None}
    atomic.discard(part, sorted(present - whole))
    atomic.remove_directory(part)  # only the empty folders in it: itself holds the lock
    return {name: file for name, file in version.files.items() if name not in whole}


def _refuse_full(part: Place, needed: int) -> None:
    free = atomic.free_bytes(part)
    if needed > free:
        raise EnvironmentFault(f"{part.uri} needs {needed:,} bytes and {free:,} are free; free space there")


def _check(part: Place, version: Version, url: Place) -> None:
    verdict = verify(part.uri)
    wrong = [*verdict.faults, *(f"{name} is not part of the artifact" for name in verdict.strangers)]
    if not wrong and (open_artifact(part).digest, open_artifact(part).plan.kind) == (version.artifact, version.kind):
        return
    atomic.discard(part, [name for name in part.names() if name != LOCK])
    raise CorruptArtifact(
        f"version {version.digest} at {url} is not a complete {version.kind} "
        f"({wrong[0] if wrong else 'another artifact'}); do not trust it, and ask who pushed it"
    )


def _keep_partial(part: Place) -> None:
    """Keeps the files that have come, for the same command to resume; removes the folder if there are none."""
    atomic.remove_directory(part)
    if set(part.names()) <= {LOCK}:
        atomic.remove(part, LOCK)
        atomic.remove_directory(part)
