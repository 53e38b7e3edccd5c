"""Leakage: the pictures whose masks were used to train something that an artifact was made with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import MaskmillError
from ..files.sealed import Json
from .artifact import Artifact, open_artifact
from .checkpoints import ids_seen_in_training, training_ids
from .facts import provenance_steps
from .plan import Input

_SEEN_NO_MASK = ("images", "tokens", "view")  # roles whose artifacts are made without masks
Steps = Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class FittedOn:
    ids: frozenset[str]  # without the pictures scored by a network that has not seen their masks
    seen: frozenset[str]  # with those pictures: other networks of the checkpoint have seen their masks
    unknown: Sequence[str]  # paths of inputs that are gone or were rebuilt since


def find_training_ids(artifact: Artifact) -> FittedOn:
    """Searches all inputs, recursively. For a missing input, a dataset's provenance says whether it was trained."""
    inputs = list(_checkpoints(artifact, provenance_steps(artifact.plan.facts)))
    checkpoints = [item for item in inputs if isinstance(item, Artifact)]
    return FittedOn(
        frozenset[str]().union(*map(ids_seen_in_training, checkpoints)),
        frozenset[str]().union(*(training_ids(checkpoint, "masks") for checkpoint in checkpoints)),
        list(dict.fromkeys(item for item in inputs if isinstance(item, str))),
    )


def leakage_warnings(artifact: Artifact, found: FittedOn) -> list[str]:
    """A warning if an input that may have been trained on masks is missing."""
    if not found.unknown:
        return []
    warning = (
        f"{artifact.place} was made with {' and '.join(found.unknown)}, which is gone or was rebuilt since, so the "
        "score may include pictures whose masks were used for training; put it back where it was"
    )
    return [warning]


def _checkpoints(artifact: Artifact, steps: Steps) -> Iterator[Artifact | str]:
    """Every checkpoint the artifact was made with; the path of an input that may be one but is missing."""
    for entry in artifact.plan.inputs:
        above = _open_input(entry, artifact)
        is_checkpoint = above is not None and above.plan.kind == "checkpoint"
        if above is None or (is_checkpoint and above.digest != entry.digest):
            if not entry.role.startswith(_SEEN_NO_MASK) and _may_be_fitted(entry.digest, steps):
                yield str(entry.place(artifact.place))
            continue
        if is_checkpoint:
            yield above
        yield from _checkpoints(above, steps)


def _open_input(entry: Input, reader: Artifact) -> Artifact | None:
    try:
        return open_artifact(entry.place(reader.place))
    except MaskmillError:
        return None


def _may_be_fitted(digest: str, steps: Steps) -> bool:
    """Whether an input was or may have been trained on masks; True if the provenance does not list it."""
    step = steps.get(digest, {})
    if "stage" not in step or step["kind"] == "checkpoint":
        return True
    above = step["inputs"].items()
    return any(
        not role.startswith(_SEEN_NO_MASK) and _may_be_fitted(digest_above, steps) for role, digest_above in above
    )
