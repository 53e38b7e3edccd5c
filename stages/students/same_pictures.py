"""Whether artifacts (tokens, a dataset, images with ground truth) have the same pictures under the same ids."""

from collections.abc import Mapping

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.artifact.facts import provenance_steps
from ...manifests.errors import InputError, MaskmillError, StaleArtifact
from ...manifests.published.frames import frame_rows


def refuse_other_pictures(first: Artifact, second: Artifact) -> None:
    """Compares digests only if the two were not made from one images artifact. Ids that only one of them has are not
    an error here: whoever reads them finds them missing."""
    if not _images_of(first).isdisjoint(_images_of(second)):
        return
    ours, theirs = _digests(first), _digests(second)
    for identifier in ours.keys() & theirs.keys():
        if ours[identifier] != theirs[identifier]:
            raise InputError(
                f"{first.place} and {second.place} were made from other pictures: {identifier!r} has sha256 "
                f"{ours[identifier][:12]}… in one and {theirs[identifier][:12]}… in the other; give two that were made "
                "from the same pictures"
            )
    if ours.keys().isdisjoint(theirs):
        raise InputError(
            f"{first.place} and {second.place} have no picture in common; give two made from the same pictures"
        )


def _images_of(artifact: Artifact) -> frozenset[str]:
    """Digests of the images artifacts that it was made from. The provenance of a dataset also holds what something was
    fitted on and what labels were compared with; those may have other pictures and are left out."""
    if artifact.plan.kind == "images":
        return frozenset((artifact.digest,))
    steps = provenance_steps(artifact.plan.facts)
    digests, to_visit = set[str](), [(origin.role, origin.digest) for origin in artifact.plan.inputs]
    while to_visit:
        role, digest = to_visit.pop()
        step = steps.get(digest, {})
        if role == "images":
            digests.add(digest)
        elif role != "compared" and step.get("kind") != "checkpoint":
            to_visit += step.get("inputs", {}).items()
    return frozenset(digests)


def _digests(artifact: Artifact) -> Mapping[str, str]:
    """Id → sha256 of the picture."""
    if artifact.plan.kind == "dataset":
        rows = frame_rows(artifact, ["id", "sha256"])
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
            f"the index of the pictures of {artifact.place} is no longer at {origin.place(artifact.place)}, so it is "
            "unknown whether the pictures are the same; run its command again"
        )
    return images
