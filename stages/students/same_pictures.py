"""Whether artifacts are of the same pictures, under the same ids: tokens, a dataset, and images with ground truth."""

from collections.abc import Mapping

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.artifact.facts import provenance_steps
from ...manifests.errors import InputError, MaskmillError, StaleArtifact
from ...manifests.published.schema import FRAME


def refuse_other_pictures(first: Artifact, second: Artifact) -> None:
    """Looks at no picture where both were made from one images artifact. Ids that only one of them has are no matter
    here: whoever reads them finds them missing."""
    if not _images_of(first).isdisjoint(_images_of(second)):
        return
    one, other = _digests(first), _digests(second)
    for identifier in one.keys() & other.keys():
        if one[identifier] != other[identifier]:
            raise InputError(
                f"{first.place} and {second.place} are of other pictures: that of {identifier!r} has sha256 "
                f"{one[identifier][:12]}… in one and {other[identifier][:12]}… in the other; give two that were made "
                "of the same"
            )
    if one.keys().isdisjoint(other):
        raise InputError(
            f"{first.place} and {second.place} have no picture in common; give two that were made of the same pictures"
        )


def _images_of(artifact: Artifact) -> frozenset[str]:
    """Digests of the images artifacts whose pictures it is of. What something was fitted on, or what labels were held
    against, is in a dataset's provenance too and may be of others."""
    if artifact.plan.kind == "images":
        return frozenset((artifact.digest,))
    steps = provenance_steps(artifact.plan.facts)
    found, ahead = set[str](), [(each.role, each.digest) for each in artifact.plan.inputs]
    while ahead:
        role, digest = ahead.pop()
        step = steps.get(digest, {})
        if role == "images":
            found.add(digest)
        elif role != "compared" and step.get("kind") != "checkpoint":
            ahead += step.get("inputs", {}).items()
    return frozenset(found)


def _digests(artifact: Artifact) -> Mapping[str, str]:
    """Id → sha256 of the picture."""
    if artifact.plan.kind == "dataset":
        group = artifact.plan.group_of(FRAME)
        units = artifact.plan.layout(group).units()
        found = [artifact.frame(FRAME, unit.index).read(columns=["id", "sha256"]) for unit in units]
        rows = [row for table in found for row in table.to_pylist()]
    else:
        rows = _images(artifact).rows(["id", "sha256"]).to_pylist()
    return {row["id"]: row["sha256"] for row in rows if row["sha256"]}


def _images(artifact: Artifact) -> Artifact:
    if artifact.plan.kind == "images":
        return artifact
    origin = artifact.plan.input("images")
    try:
        images = open_artifact(origin.place(artifact.place), "images")
    except MaskmillError:
        images = None
    if images is None or images.digest != origin.digest:
        raise StaleArtifact(
            f"{artifact.place} was made of pictures whose index is not at {origin.place(artifact.place)} any more, so "
            "that nothing tells whether they are the same; run its command again"
        )
    return images
