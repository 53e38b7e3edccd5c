"""Finds the artifacts of a work folder that nothing needs any more, and removes them.

Kept are results with everything that they were made from: datasets, checkpoints, unfinished artifacts and those that a
run holds, what the last complete run or sweep made, and metrics of artifacts that are kept.
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
    """A folder of the work folder that holds an artifact, or the rest of one."""

    name: str
    kind: str  # "" if its plan cannot be read
    bytes: int
    why: str  # reason to keep it; "" if it can go


@dataclass(frozen=True, slots=True)
class Cleaning:
    at: str
    entries: Sequence[WorkFolderEntry]
    deleted: bool

    @property
    def to_keep(self) -> list[WorkFolderEntry]:
        return [entry for entry in self.entries if entry.why]

    @property
    def to_delete(self) -> list[WorkFolderEntry]:
        """Those that can go, or are deleted."""
        return [entry for entry in self.entries if not entry.why]


@dataclass(frozen=True, slots=True)
class _Inspection:
    at: Place
    plan: Plan | None  # None if it cannot be read
    artifact: Artifact | None  # None if it is not finished
    why: str  # reason to keep it that lies in itself, or ""

    @property
    def name(self) -> str:
        return self.at.uri.rpartition("/")[2]


def clean(uri: str, delete: bool) -> Cleaning:
    """Lists what can go, and removes it if `delete`. Looks into the folders of the work folder, never deeper and never
    through a link."""
    if not place(uri).is_local:
        raise ConfigError(f"{uri} is a URL, and gc works on local folders; use the lifecycle rules of the bucket")
    work = Place(os.path.realpath(place(uri).uri))
    inspections = {one.at.uri: one for one in _artifacts(work)}
    left = [name for name in _folders(work) if gone.is_going(name)]
    if not inspections and not left:
        raise InputError(f"{work} is not a work folder: no folder in it holds a {PLAN}; check the path")
    if delete and (busy := [one.at for one in inspections.values() if lock.is_held(one.at)]):
        raise ArtifactBusy(
            f"{busy[0]} is held by a run, which may read any artifact of {work} next; wait for it to end"
        )
    if delete and (unknown := [one for one in inspections.values() if one.plan is None]):
        raise InputError(
            f"the inputs of {unknown[0].at} are unknown, so nothing was deleted ({unknown[0].why}); "
            "restore it or move it away"
        )
    why = _reasons(work, inspections)
    entries = [WorkFolderEntry(name, "", _size(work.join(name)), "") for name in left]
    for at, one in inspections.items():
        kind = one.plan.kind if one.plan else ""
        entries.append(WorkFolderEntry(one.name, kind, _size(one.at), why.get(at, "")))
    if delete:
        for name in left:
            gone.remove_going(work.join(name))
        for artifact in _readers_first([one for at, one in inspections.items() if at not in why]):
            gone.remove_artifact(artifact)
    return Cleaning(work.uri, entries, delete)


def _folders(work: Place) -> list[str]:
    try:
        with os.scandir(work.uri) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{work} is not a folder; check the path") from None
    except PermissionError as error:
        raise InputError(f"cannot read the folder {work}: {error.strerror}; check its permissions") from error


def _artifacts(work: Place) -> Iterator[_Inspection]:
    for name in _folders(work):
        at = work.join(name)
        if not name.startswith(".") and at.exists(PLAN):  # hidden folders are unfinished transfers, such as a pull
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
        return _Inspection(
            at, plan, artifact, f"holds files that do not belong to it ({len(others)}, first {others[0]!r})"
        )
    return _Inspection(at, plan, artifact, f"a {plan.kind}" if plan.kind in RESULTS else "")


def _reasons(work: Place, inspections: Mapping[str, _Inspection]) -> dict[str, str]:
    """Path → reason to keep it."""
    why = {at: one.why for at, one in inspections.items() if one.why}
    for name, reason in _last_run(work):
        at = work.join(name).uri
        if at in inspections:
            why.setdefault(at, reason)
    waiting = list(why)
    while waiting:
        reader = inspections[waiting.pop()]
        for above in _above(reader, inspections):
            if above not in why:
                why[above] = f"{reader.name} was made from it"
                waiting.append(above)
    return why | dict(_judging(inspections, why))


def _judging(inspections: Mapping[str, _Inspection], why: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for at, metrics in inspections.items():
        if at in why or metrics.plan is None or metrics.plan.kind != "metrics":
            continue
        judged = [inspections[above] for above in _above(metrics, inspections) if above in why]
        digests = {one.artifact.digest for one in judged if one.artifact}
        if all(read.digest in digests for read in metrics.plan.inputs):
            names = [one.name for one in judged if one.plan and one.plan.kind != "images"]
            yield at, f"scores {' and '.join(names)}"


def _above(reader: _Inspection, inspections: Mapping[str, _Inspection]) -> list[str]:
    """What an artifact was made from: by the path of an input, by its digest if it was moved, and by the provenance of
    a dataset, since artifacts in between may be deleted."""
    if reader.plan is None:
        return []
    places = [read.place(reader.at) for read in reader.plan.inputs]
    paths = {os.path.realpath(where.uri) for where in places if where.is_local}
    digests = {read.digest for read in reader.plan.inputs}
    digests |= provenance_steps(reader.plan.facts).keys()
    return [
        at
        for at, one in inspections.items()
        if one is not reader and (at in paths or (one.artifact is not None and one.artifact.digest in digests))
    ]


def _last_run(work: Place) -> list[tuple[str, str]]:
    """Its artifacts, and why they are kept. Raises CorruptArtifact if its record is damaged."""
    try:
        last = sealed.read(work, LAST_RUN)
    except FileNotFoundError:
        return []
    if several := last.get("combinations", ()):
        return [(str(name), "made or used by the last sweep") for artifacts in several for name in artifacts.values()]
    return [(str(name), "made or used by the last run") for name in last.get("artifacts", {}).values()]


def _readers_first(going: Sequence[_Inspection]) -> list[Artifact]:
    """Deletes readers before their inputs, so that a stop in between leaves no artifact without its inputs."""
    left = {one.at.uri: one for one in going}
    order: list[Artifact] = []
    while left:
        read = {above for one in left.values() for above in _above(one, left)}
        free = [at for at in left if at not in read] or list(left)
        order += [artifact for at in free if (artifact := left.pop(at).artifact)]
    return order


def _size(at: Place) -> int:
    return sum(at.sizes().values())
