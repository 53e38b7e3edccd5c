"""The pictures whose masks were seen by something that was needed to make what is judged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import MaskmillError
from ..files.sealed import Json
from .artifact import Artifact, open_artifact
from .checkpoints import ids_seen_in_training, training_ids
from .facts import provenance_steps
from .plan import Input

_SEEN_NO_MASK = ("images", "tokens", "view")  # roles of what is made before any mask is looked at
Steps = Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class FittedOn:
    ids: frozenset[str]  # but for those that were scored by a network that has not seen theirs
    seen: frozenset[str]  # those, too: what was made of other pictures has seen theirs
    unknown: Sequence[str]  # of what has gone, or was made anew since: where it lay


def find_training_ids(artifact: Artifact) -> FittedOn:
    """All the way up. A dataset's own account tells of what has gone whether it was fitted on anything."""
    found = list(_checkpoints(artifact, provenance_steps(artifact.plan.facts)))
    checkpoints = [each for each in found if isinstance(each, Artifact)]
    return FittedOn(
        frozenset[str]().union(*map(ids_seen_in_training, checkpoints)),
        frozenset[str]().union(*(training_ids(each, "masks") for each in checkpoints)),
        list(dict.fromkeys(each for each in found if isinstance(each, str))),
    )


def leakage_warnings(artifact: Artifact, found: FittedOn) -> list[str]:
    """A warning for who judges it, where something that may have been fitted is not to be had."""
    if not found.unknown:
        return []
    sentence = (
        f"{artifact.place} was made with {' and '.join(found.unknown)}, which has gone or was made anew since, so "
        "pictures whose masks something was fitted on may be among those that were judged; put it back where it was"
    )
    return [sentence]


def _checkpoints(artifact: Artifact, told: Steps) -> Iterator[Artifact | str]:
    """Each that was needed; in the place of one that may have been, where it lay."""
    for each in artifact.plan.inputs:
        above = _open_input(each, artifact)
        is_checkpoint = above is not None and above.plan.kind == "checkpoint"
        if above is None or (is_checkpoint and above.digest != each.digest):
            if not each.role.startswith(_SEEN_NO_MASK) and _may_be_fitted(each.digest, told):
                yield str(each.place(artifact.place))
            continue
        if is_checkpoint:
            yield above
        yield from _checkpoints(above, told)


def _open_input(each: Input, reader: Artifact) -> Artifact | None:
    try:
        return open_artifact(each.place(reader.place))
    except MaskmillError:
        return None


def _may_be_fitted(digest: str, told: Steps) -> bool:
    """What is not told of may be."""
    step = told.get(digest, {})
    if "stage" not in step or step["kind"] == "checkpoint":
        return True
    above = step["inputs"].items()
    return any(not role.startswith(_SEEN_NO_MASK) and _may_be_fitted(each, told) for role, each in above)
