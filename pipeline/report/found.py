"""What there is to report on: the artifacts of a work folder, or some with what they were made from, in order."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...manifests.artifact.artifact import ARTIFACT
from ...manifests.artifact.facts import provenance_steps
from ...manifests.artifact.plan import PLAN, Input, Plan, read_plan
from ...manifests.errors import CorruptArtifact, InputError, MaskmillError
from ...manifests.files import sealed
from ...manifests.files.digests import FileDigest
from ...manifests.files.place import Place, place
from ...manifests.files.sealed import Json
from ..recipes.chain import LAST_RUN


@dataclass(frozen=True, slots=True)
class Gone:
    """What an artifact was made from and is not there any more, as far as a dataset's own account tells of it."""

    role: str
    at: str
    told: Mapping[str, Json]  # stage, kind, config, …; empty where nothing tells


@dataclass(slots=True)
class Found:
    title: str = ""
    chain: list[Place] = field(default_factory=list)  # each behind what it was made from
    others: list[Place] = field(default_factory=list)  # in the same work folder, and no part of its last run
    gone: dict[str, Gone] = field(default_factory=dict)  # by digest
    remarks: list[str] = field(default_factory=list)


def find(uris: Sequence[str]) -> Found:
    """Work folders and artifacts as a user names them; raises InputError where there is neither."""
    found = Found()
    for uri in uris:
        at = _plain(place(uri))
        if at.exists(PLAN):
            _add(found, at)
        else:
            _add_work(found, at)
    _tell_gone(found)
    return found


def _plain(at: Place) -> Place:
    """Without .., as the paths of inputs are: or one artifact would be two."""
    return Place(os.path.normpath(at.uri)) if at.is_local else at


def _add_work(found: Found, work: Place) -> None:
    folders = [work.join(name) for name in _artifact_folders(work)]
    if not folders:
        raise InputError(
            f"{work} is no artifact and no work folder: neither it nor a folder in it holds a {PLAN}; check the path"
        )
    last = _last_run(found, work, folders)
    for each in last or folders:
        _add(found, each)
    rest = [each for each in folders if each not in found.chain]
    for each in rest:
        if _judges(each, found.chain):
            _add(found, each)
        elif each not in found.others:
            found.others.append(each)


def _artifact_folders(work: Place) -> list[str]:
    return [
        name.removesuffix(f"/{PLAN}") for name in work.names() if name.count("/") == 1 and name.endswith(f"/{PLAN}")
    ]


def _last_run(found: Found, work: Place, folders: Sequence[Place]) -> list[Place]:
    """What the last complete run made, of which some may have gone; nothing where no run was complete."""
    try:
        last = sealed.read(work, LAST_RUN)
    except FileNotFoundError:
        found.remarks.append(f"No run in {work} was completed: these are all the artifacts that there are.")
        return []
    except CorruptArtifact as error:
        found.remarks.append(f"{error}; these are all the artifacts that there are.")
        return []
    found.title = found.title or str(last.get("title", ""))
    named = [work.join(str(name)) for name in last.get("artifacts", {}).values()]
    if missing := [each.uri for each in named if each not in folders]:
        found.remarks.append(f"Of the last run these are not there any more: {', '.join(missing)}.")
    return [each for each in named if each in folders]


def _add(found: Found, at: Place) -> None:
    """An artifact behind everything that it was made from."""
    if at in found.chain:
        return
    plan = _plan(at)
    for each in plan.inputs if plan else ():
        where = each.place(at)
        if where.exists(PLAN):
            _add(found, where)
        else:
            found.gone.setdefault(each.digest, Gone(each.role, where.uri, {}))
    if at not in found.chain:
        found.chain.append(at)


def _plan(at: Place) -> Plan | None:
    try:
        return read_plan(at)
    except MaskmillError:  # which the step itself says
        return None


def _judges(at: Place, chain: Sequence[Place]) -> bool:
    """Whether it tells what something of the chain is worth."""
    plan = _plan(at)
    return plan is not None and plan.kind == "metrics" and all(each.place(at) in chain for each in plan.inputs)


def _tell_gone(found: Found) -> None:
    told = {step["digest"]: step for step in _accounts(found.chain) if "stage" in step}
    here = {digest for at in found.chain if (digest := _digest(at))}
    waiting = list(found.gone)
    while waiting:
        digest = waiting.pop()
        step = told.get(digest, {})
        found.gone[digest] = Gone(found.gone[digest].role, found.gone[digest].at, step)
        for role, above in step.get("inputs", {}).items():
            if above not in found.gone and above not in here:
                found.gone[above] = Gone(role, "", {})
                waiting.append(above)


def _accounts(chain: Sequence[Place]) -> Iterator[Mapping[str, Json]]:
    for at in chain:
        plan = _plan(at)
        yield from provenance_steps(plan.facts).values() if plan else ()


def _digest(at: Place) -> str:
    return FileDigest.of(at.read(ARTIFACT)).sha256 if at.exists(ARTIFACT) else ""


def as_read(reader: Place, each: Input) -> bool:
    """Whether an input is still what was read."""
    return _digest(each.place(reader)) == each.digest
