"""Removing an artifact from a disk: first under another name, so that what a killed removal leaves is known as that.

Only files are removed that an artifact of ours consists of. Where others lie in its folder, nothing is removed.
"""

import os

from ..errors import StaleArtifact
from ..files import atomic
from ..files.lock import LOCK, hold_lock
from ..files.place import Place
from .artifact import Artifact, open_artifact
from .vouched import read_file_digests

MARK = ".maskmill-gone"  # at the end of the name of a folder that is being removed


def is_going(name: str) -> bool:
    return name.startswith(".") and name.endswith(MARK)


def strangers(artifact: Artifact) -> list[str]:
    """The files in an artifact's folder that are not its own; a link is one, wherever it leads."""
    return sorted(name for name in set(artifact.place.names()) - set(read_file_digests(artifact)) if not _is_ours(name))


def _is_ours(name: str) -> bool:
    """Of what is in no digest: the lock, the log, listings of earlier revisions, temporaries of killed writers."""
    in_folder = name.startswith(("log/", "listing/")) and name.count("/") == 1
    return name == LOCK or in_folder or name.endswith(atomic.TEMPORARY_SUFFIX)


def remove_artifact(artifact: Artifact) -> None:
    """Raises ArtifactBusy where a run holds it, and StaleArtifact where it is not what was looked at."""
    at = artifact.place
    parent, _, name = at.uri.rpartition("/")
    going = Place(f"{parent}/.{name}{MARK}")
    with hold_lock(at):
        if open_artifact(at).digest != artifact.digest or strangers(artifact):
            raise StaleArtifact(f"{at} changed meanwhile, so it was left; look again at what can go")
        remove_going(going)  # of an artifact of that name that went before
        atomic.move_directory(at, going)
        remove_going(going)


def remove_going(going: Place) -> None:
    """Removes what is left of an artifact."""
    atomic.discard(going, list(going.names()))
    atomic.remove_directory(going)
    if os.path.lexists(going.uri):
        raise StaleArtifact(f"{going} holds what cannot be removed; look at it and remove it by hand")
