"""What two artifacts were made with, all the way up, and where that differs."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import provenance_steps
from ...manifests.artifact.fingerprint import differences
from ...manifests.files.sealed import Json
from ...manifests.published.schema import provenance, shareable

_TOLD = "told"  # of a step that a dataset's own account knows, in which paths are cut short
_COMPARED = ("stage", "code_version", "config", "device", "libraries")
LineageStep = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class LineageDifference:
    """`of` is the kind of one's own, and above it the role that an artifact has for what was made from it."""

    of: str
    name: str  # a config field; or stage, code_version, device, libraries.NAME, content
    a: Json
    b: Json


def lineage_differences(a: Artifact, b: Artifact) -> list[LineageDifference]:
    """Artifacts are paired by kind and role, so that maps are held against the maps that labels were made from."""
    ours, theirs = _steps(a), _steps(b)
    return [each for of in {**ours, **theirs} for each in _between(of, ours.get(of), theirs.get(of))]


def _steps(artifact: Artifact) -> dict[str, LineageStep]:
    """Everything that an artifact was made from, itself first, by what it is to the others. What has gone and is known
    from a dataset's own account is taken from there."""
    steps = provenance_steps(artifact.plan.facts)
    known: dict[str, LineageStep] = {key: {**step, _TOLD: True} for key, step in steps.items() if "stage" in step}
    known |= {step["digest"]: step for step in provenance([artifact], whole_paths=True) if "stage" in step}
    named: dict[str, LineageStep] = {}
    waiting = deque([(artifact.plan.kind, "", artifact.digest)])
    while waiting:
        name, reader, digest = waiting.popleft()
        if name in named and named[name]["digest"] != digest:  # another of the same role, such as older images
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
    is_told = _TOLD in ours or _TOLD in theirs
    found = [
        LineageDifference(of, name.removeprefix("config."), one, other)
        for name, one, other in differences(_comparison_values(ours, is_told), _comparison_values(theirs, is_told))
    ]
    # Equal settings of equal inputs, and other bytes: it is what lies outside that differs, such as the pictures.
    if not found and ours["digest"] != theirs["digest"] and ours["inputs"] == theirs["inputs"]:
        found = [LineageDifference(of, "content", ours["digest"][:12], theirs["digest"][:12])]
    yield from found


def _stage(step: LineageStep | None) -> str | None:
    """None: there is no such step; what has gone is told as that."""
    if step is None:
        return None
    return str(step.get("stage", "gone, or changed since"))


def _comparison_values(step: LineageStep, cut_short: bool) -> dict[str, Json]:
    values = {name: step[name] for name in _COMPARED}
    return values | {"config": shareable(values["config"])} if cut_short else values
