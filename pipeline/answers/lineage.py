"""Compares how two artifacts were made: their settings and those of everything that they were made from."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import provenance_steps
from ...manifests.artifact.fingerprint import differences
from ...manifests.files.sealed import Json
from ...manifests.published.schema import provenance, shareable

_FROM_DATASET = "told"  # marks a step known only from a dataset's provenance, which shortens paths
_COMPARED = ("stage", "code_version", "config", "device", "libraries")
LineageStep = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class LineageDifference:
    """`of` is the kind of the artifact itself, or the role of one that it was made from."""

    of: str
    name: str  # a config field; or stage, code_version, device, libraries.NAME, content
    a: Json
    b: Json


def lineage_differences(a: Artifact, b: Artifact) -> list[LineageDifference]:
    """Pairs artifacts by kind and role: maps are compared with the maps that labels were made from."""
    ours, theirs = _steps(a), _steps(b)
    return [change for of in {**ours, **theirs} for change in _between(of, ours.get(of), theirs.get(of))]


def _steps(artifact: Artifact) -> dict[str, LineageStep]:
    """The artifact and everything that it was made from, by role. Deleted artifacts are looked up in the dataset's
    provenance."""
    steps = provenance_steps(artifact.plan.facts)
    known: dict[str, LineageStep] = {
        key: {**step, _FROM_DATASET: True} for key, step in steps.items() if "stage" in step
    }
    known |= {step["digest"]: step for step in provenance([artifact], whole_paths=True) if "stage" in step}
    named: dict[str, LineageStep] = {}
    waiting = deque([(artifact.plan.kind, "", artifact.digest)])
    while waiting:
        name, reader, digest = waiting.popleft()
        if name in named and named[name]["digest"] != digest:  # another artifact of the same role, such as older images
            name = f"{name} of {reader}"
        if name in named:
            continue
        named[name] = known.get(digest, {"digest": digest})
        waiting.extend((role, name, above) for role, above in sorted(named[name].get("inputs", {}).items()))
    return named


def _between(of: str, ours: LineageStep | None, theirs: LineageStep | None) -> Iterator[LineageDifference]:
    if ours is None or theirs is None:
        yield LineageDifference(of, "stage", _stage(ours), _stage(theirs))
        return
    if "stage" not in ours or "stage" not in theirs:
        if ours["digest"] != theirs["digest"]:
            yield LineageDifference(of, "stage", _stage(ours), _stage(theirs))
        return
    cut_short = _FROM_DATASET in ours or _FROM_DATASET in theirs
    changes = [
        LineageDifference(of, name.removeprefix("config."), one, other)
        for name, one, other in differences(_comparison_values(ours, cut_short), _comparison_values(theirs, cut_short))
    ]
    # Equal settings and inputs with other bytes: something outside differs, such as the pictures.
    if not changes and ours["digest"] != theirs["digest"] and ours["inputs"] == theirs["inputs"]:
        changes = [LineageDifference(of, "content", ours["digest"][:12], theirs["digest"][:12])]
    yield from changes


def _stage(step: LineageStep | None) -> str | None:
    """None if there is no such step."""
    return None if step is None else str(step.get("stage", "gone, or changed since"))


def _comparison_values(step: LineageStep, cut_short: bool) -> dict[str, Json]:
    values = {name: step[name] for name in _COMPARED}
    return values | {"config": shareable(values["config"])} if cut_short else values
