"""Removes an artifact from a disk. The folder is renamed first, so leftovers of a killed removal are recognised.

A folder that holds any file that is not part of the artifact is left untouched.
"""

import os

from ..errors import StaleArtifact
from ..files import atomic
from ..files.lock import LOCK, hold_lock
from ..files.place import Place
from .artifact import Artifact, open_artifact
from .vouched import read_file_digests

MARK = ".maskmill-gone"  # suffix of a folder that is being removed


def is_going(name: str) -> bool:
    return name.startswith(".") and name.endswith(MARK)


def strangers(artifact: Artifact) -> list[str]:
    """Files in an artifact's folder that are not part of it, including any link."""
    return sorted(name for name in set(artifact.place.names()) - set(read_file_digests(artifact)) if not _is_ours(name))


def _is_ours(name: str) -> bool:
    """Whether a file without a digest is ours: lock, log, earlier listings, temporaries of killed writers."""
    in_folder = name.startswith(("log/", "listing/")) and name.count("/") == 1
    return name == LOCK or in_folder or name.endswith(atomic.TEMPORARY_SUFFIX)


def remove_artifact(artifact: Artifact) -> None:
    """Raises ArtifactBusy if a run holds the artifact, StaleArtifact if it changed since it was opened."""
    at = artifact.place
    parent, _, name = at.uri.rpartition("/")
    going = Place(f"{parent}/.{name}{MARK}")
    with hold_lock(at):
        if open_artifact(at).digest != artifact.digest or strangers(artifact):
            raise StaleArtifact(f"{at} changed meanwhile and was not removed; check it and run the command again")
        remove_going(going)  # leftovers of an earlier removal
        atomic.move_directory(at, going)
        remove_going(going)


def remove_going(going: Place) -> None:
    """Removes the files of a renamed artifact."""
    atomic.discard(going, list(going.names()))
    atomic.remove_directory(going)
    if os.path.lexists(going.uri):
        raise StaleArtifact(f"{going} cannot be removed completely; remove it by hand")
