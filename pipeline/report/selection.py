"""Finds the artifacts to report on: those of a work folder, or those named with everything they were made from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...manifests.artifact.artifact import ARTIFACT
from ...manifests.artifact.facts import provenance_steps
from ...manifests.artifact.plan import PLAN, Plan, read_plan
from ...manifests.errors import CorruptArtifact, InputError, MaskmillError
from ...manifests.files import sealed
from ...manifests.files.digests import FileDigest
from ...manifests.files.place import Place, place
from ...manifests.files.sealed import Json
from ..recipes.chain import LAST_RUN


@dataclass(frozen=True, slots=True)
class Gone:
    """A deleted artifact that others were made from, as far as a dataset's provenance describes it."""

    role: str
    at: str
    step: Mapping[str, Json]  # stage, kind, config, …; empty if unknown


@dataclass(slots=True)
class Selection:
    title: str = ""
    chain: list[Place] = field(default_factory=list)  # each after its inputs
    others: list[Place] = field(default_factory=list)  # in the same work folder, but not part of its last run
    gone: dict[str, Gone] = field(default_factory=dict)  # by digest
    remarks: list[str] = field(default_factory=list)


def select_artifacts(uris: Sequence[str]) -> Selection:
    """Finds the artifacts of work folders or paths; raises InputError for anything else."""
    selection = Selection()
    for uri in uris:
        at = _plain(place(uri))
        if at.exists(PLAN):
            _add(selection, at)
        else:
            _add_work(selection, at)
    _describe_gone(selection)
    return selection


def _plain(at: Place) -> Place:
    """The path without `..`, like the paths of inputs, so that no artifact appears twice."""
    return Place(os.path.normpath(at.uri)) if at.is_local else at


def _add_work(selection: Selection, work: Place) -> None:
    folders = [work.join(name) for name in _artifact_folders(work)]
    if not folders:
        raise InputError(
            f"{work} is not an artifact or a work folder: neither it nor a folder in it holds a {PLAN}; check the path"
        )
    last = _last_run(selection, work, folders)
    for folder in last or folders:
        _add(selection, folder)
    for folder in [one for one in folders if one not in selection.chain]:
        if _judges(folder, selection.chain):
            _add(selection, folder)
        elif folder not in selection.others:
            selection.others.append(folder)


def _artifact_folders(work: Place) -> list[str]:
    return [
        name.removesuffix(f"/{PLAN}") for name in work.names() if name.count("/") == 1 and name.endswith(f"/{PLAN}")
    ]


def _last_run(selection: Selection, work: Place, folders: Sequence[Place]) -> list[Place]:
    """The artifacts of the last complete run that still exist; none without a complete run."""
    try:
        last = sealed.read(work, LAST_RUN)
    except FileNotFoundError:
        selection.remarks.append(f"No run in {work} was completed; all artifacts are shown.")
        return []
    except CorruptArtifact as error:
        selection.remarks.append(f"{error}; all artifacts are shown.")
        return []
    selection.title = selection.title or str(last.get("title", ""))
    named = [work.join(str(name)) for name in last.get("artifacts", {}).values()]
    if missing := [one.uri for one in named if one not in folders]:
        selection.remarks.append(f"Artifacts of the last run are missing: {', '.join(missing)}.")
    return [one for one in named if one in folders]


def _add(selection: Selection, at: Place) -> None:
    if at in selection.chain:
        return
    plan = _plan(at)
    for read in plan.inputs if plan else ():
        where = read.place(at)
        if where.exists(PLAN):
            _add(selection, where)
        else:
            selection.gone.setdefault(read.digest, Gone(read.role, where.uri, {}))
    if at not in selection.chain:
        selection.chain.append(at)


def _plan(at: Place) -> Plan | None:
    try:
        return read_plan(at)
    except MaskmillError:  # the card of the step shows it
        return None


def _judges(at: Place, chain: Sequence[Place]) -> bool:
    """Whether it holds scores of an artifact of the chain."""
    plan = _plan(at)
    return plan is not None and plan.kind == "metrics" and all(read.place(at) in chain for read in plan.inputs)


def _describe_gone(selection: Selection) -> None:
    known = {step["digest"]: step for step in _provenance(selection.chain) if "stage" in step}
    present = {digest for at in selection.chain if (digest := _digest(at))}
    waiting = list(selection.gone)
    while waiting:
        digest = waiting.pop()
        step = known.get(digest, {})
        selection.gone[digest] = Gone(selection.gone[digest].role, selection.gone[digest].at, step)
        for role, above in step.get("inputs", {}).items():
            if above not in selection.gone and above not in present:
                selection.gone[above] = Gone(role, "", {})
                waiting.append(above)


def _provenance(chain: Sequence[Place]) -> Iterator[Mapping[str, Json]]:
    for at in chain:
        plan = _plan(at)
        yield from provenance_steps(plan.facts).values() if plan else ()


def _digest(at: Place) -> str:
    return FileDigest.of(at.read(ARTIFACT)).sha256 if at.exists(ARTIFACT) else ""
