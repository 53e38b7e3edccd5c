"""What of a work folder nothing needs any more, and its removal.

Needed is what cannot be had again by running a recipe, with all that it was made from: datasets, checkpoints, what is
unfinished or held by a run, what the last complete run or sweep made; and metrics, as long as what they judge stays.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.artifact import removal as gone
from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.artifact.facts import provenance_steps
from ...manifests.artifact.plan import PLAN, Plan, read_plan
from ...manifests.errors import ArtifactBusy, ConfigError, InputError, MaskmillError, UnfinishedArtifact
from ...manifests.files import lock, sealed
from ...manifests.files.place import Place, place
from ..recipes.chain import LAST_RUN

RESULTS = ("dataset", "checkpoint")


@dataclass(frozen=True, slots=True)
class WorkFolderEntry:
    """A folder of the work folder that is an artifact, or what is left of one."""

    name: str
    kind: str  # "" where its plan cannot be read
    bytes: int
    why: str  # it stays; "" where it can go


@dataclass(frozen=True, slots=True)
class Cleaning:
    at: str
    entries: Sequence[WorkFolderEntry]
    deleted: bool

    @property
    def to_keep(self) -> list[WorkFolderEntry]:
        return [each for each in self.entries if each.why]

    @property
    def to_delete(self) -> list[WorkFolderEntry]:
        """Those that can go, or have gone."""
        return [each for each in self.entries if not each.why]


@dataclass(frozen=True, slots=True)
class _Inspection:
    """An artifact as it lies there."""

    at: Place
    plan: Plan | None  # None where it cannot be read
    artifact: Artifact | None  # None where it is not finished
    why: str  # it stays for itself


def clean(uri: str, delete: bool) -> Cleaning:
    """Says what can go, and removes it if that is wanted. Looks into the folders of the work folder, never deeper and
    never through a link."""
    if not place(uri).is_local:
        raise ConfigError(f"{uri} is a URL, and gc is for folders of this machine; use the rules of the bucket")
    work = Place(os.path.realpath(place(uri).uri))
    found = {each.at.uri: each for each in _artifacts(work)}
    left = [name for name in _folders(work) if gone.is_going(name)]
    if not found and not left:
        raise InputError(f"{work} is no work folder: no folder in it holds a {PLAN}; check the path")
    if delete and (busy := [each.at for each in found.values() if lock.is_held(each.at)]):
        raise ArtifactBusy(
            f"{busy[0]} is held by a run, which may read any artifact of {work} next; wait for it to end"
        )
    if delete and (unknown := [each for each in found.values() if each.plan is None]):
        raise InputError(
            f"what {unknown[0].at} was made from cannot be told, so nothing was deleted ({unknown[0].why}); "
            "restore it or move it away"
        )
    why = _reasons(work, found)
    entries = [WorkFolderEntry(name, "", _size(work.join(name)), "") for name in left]
    for at, each in found.items():
        name, kind = at.rpartition("/")[2], each.plan.kind if each.plan else ""
        entries.append(WorkFolderEntry(name, kind, _size(each.at), why.get(at, "")))
    if delete:
        for name in left:
            gone.remove_going(work.join(name))
        for artifact in _readers_first([each for at, each in found.items() if at not in why]):
            gone.remove_artifact(artifact)
    return Cleaning(work.uri, entries, delete)


def _folders(work: Place) -> list[str]:
    try:
        with os.scandir(work.uri) as entries:
            return sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{work} is no folder; check the path") from None
    except PermissionError as error:
        raise InputError(f"cannot look into {work}: {error.strerror}; check its rights") from error


def _artifacts(work: Place) -> Iterator[_Inspection]:
    for name in _folders(work):
        at = work.join(name)
        if not name.startswith(".") and at.exists(PLAN):  # hidden is what is still on its way, such as a pull's
            yield _inspect_folder(at)


def _inspect_folder(at: Place) -> _Inspection:
    plan: Plan | None = None
    try:
        plan = read_plan(at)
        artifact = open_artifact(at)
        others = gone.strangers(artifact)
    except UnfinishedArtifact:
        return _Inspection(at, plan, None, "held by a run" if lock.is_held(at) else "unfinished")
    except (MaskmillError, FileNotFoundError) as error:
        return _Inspection(at, plan, None, f"cannot be read: {error}")
    if lock.is_held(at):
        return _Inspection(at, plan, artifact, "held by a run")
    if others:
        return _Inspection(at, plan, artifact, f"holds {len(others)} files that are not its own, first {others[0]!r}")
    return _Inspection(at, plan, artifact, f"a {plan.kind}" if plan.kind in RESULTS else "")


def _reasons(work: Place, found: Mapping[str, _Inspection]) -> dict[str, str]:
    """Path → why it stays."""
    why = {at: each.why for at, each in found.items() if each.why}
    for name, reason in _last_run(work):
        at = work.join(name).uri
        if at in found:
            why.setdefault(at, reason)
    waiting = list(why)
    while waiting:
        reader = found[waiting.pop()]
        for above in _above(reader, found):
            if above not in why:
                why[above] = f"{reader.at.uri.rpartition('/')[2]} was made from it"
                waiting.append(above)
    return why | dict(_judging(found, why))


def _judging(found: Mapping[str, _Inspection], why: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for at, each in found.items():
        if at in why or each.plan is None or each.plan.kind != "metrics":
            continue
        judged = [found[above] for above in _above(each, found) if above in why]
        digests = {one.artifact.digest for one in judged if one.artifact}
        if all(one.digest in digests for one in each.plan.inputs):
            names = [one.at.uri.rpartition("/")[2] for one in judged if one.plan and one.plan.kind != "images"]
            yield at, f"judges {' and '.join(names)}"


def _above(reader: _Inspection, found: Mapping[str, _Inspection]) -> list[str]:
    """What an artifact was made from: what lies where an input lay; what it was, wherever that was moved; and what a
    dataset tells of all that is above it, since what lies between may have gone."""
    if reader.plan is None:
        return []
    places = [each.place(reader.at) for each in reader.plan.inputs]
    paths = {os.path.realpath(each.uri) for each in places if each.is_local}
    digests = {each.digest for each in reader.plan.inputs}
    digests |= provenance_steps(reader.plan.facts).keys()
    return [
        at
        for at, each in found.items()
        if each is not reader and (at in paths or (each.artifact is not None and each.artifact.digest in digests))
    ]


def _last_run(work: Place) -> list[tuple[str, str]]:
    """What it made, and why that stays. Raises CorruptArtifact where that cannot be told: then nothing goes."""
    try:
        last = sealed.read(work, LAST_RUN)
    except FileNotFoundError:
        return []
    if several := last.get("combinations", ()):
        return [(str(name), "made or used by the last sweep") for each in several for name in each.values()]
    return [(str(name), "made or used by the last run") for name in last.get("artifacts", {}).values()]


def _readers_first(going: Sequence[_Inspection]) -> list[Artifact]:
    """Nothing stays, were this stopped, that was made from what has gone."""
    left = {each.at.uri: each for each in going}
    order: list[Artifact] = []
    while left:
        read = {above for each in left.values() for above in _above(each, left)}
        free = [at for at in left if at not in read] or list(left)
        order += [artifact for at in free if (artifact := left.pop(at).artifact)]
    return order


def _size(at: Place) -> int:
    return sum(at.sizes().values())
