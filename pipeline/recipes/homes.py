"""The directory of an artifact of a recipe in WORK, named after its fingerprint.

The options decide the name, so another threshold makes new labels beside the old ones, from the same tokens. The
fingerprint covers neither the pictures (see `_home`) nor which fields exist, in a stage that can add fields (see
`home_of`). If the inputs of a slow stage have changed, its result, such as a checkpoint, is made again beside the old
one, which stays (see `_long_home`).
"""

from typing import Any

from ...manifests.artifact.artifact import Artifact, open_artifact
from ...manifests.artifact.fingerprint import fingerprint
from ...manifests.artifact.plan import PLAN, Input, read_plan
from ...manifests.errors import MaskmillError
from ...manifests.files.place import Place
from ...manifests.files.sealed import digest_of
from ...stages.stage import Inputs, Stage, WholeStage
from ..running.planning import ask, conflicting_fields, header_of, input_digest, inputs_of, merge_existing_fields
from ..running.whole import find_changed_inputs


def home_of(work: Place, stage: Stage | WholeStage, config: Any, inputs: Inputs) -> Place:
    """New fields go into the existing artifact. If it holds a field in another form, such as of other blocks, it stays
    as it is, and a new artifact is made beside it."""
    name = f"{stage.kind}-{fingerprint(header_of(stage, config, inputs))[:12]}"
    at = _home(work, name, inputs.get("images"))
    if isinstance(stage, WholeStage):
        return _long_home(work, name, at, stage, config, inputs) if stage.takes_long else at
    if not stage.selects:
        return at
    request = ask(stage, config, inputs)
    while at.exists(PLAN):
        plan = read_plan(at)
        conflicts = conflicting_fields(merge_existing_fields(request, plan), plan)
        if not conflicts:
            break
        name += f"-{digest_of({field.name: request.field_fingerprint(field) for field in conflicts})[:12]}"
        at = _home(work, name, inputs.get("images"))
    return at


def _long_home(work: Place, name: str, at: Place, stage: WholeStage, config: Any, inputs: Inputs) -> Place:
    if not at.exists(PLAN) or not find_changed_inputs(read_plan(at), reuse_inputs(at, inputs)):
        return at
    read = inputs_of(at, inputs, header_of(stage, config, inputs))
    contents = {source.role: input_digest(inputs[source.role], source.fields) or source.digest for source in read}
    return work.join(f"{name}-{digest_of(contents)[:12]}")


def reuse_inputs(at: Place, inputs: Inputs) -> Inputs:
    """The inputs that an artifact was made from replace new ones with the same fields and more: what was made from them
    need not be checked again and keeps its bytes."""
    if not at.exists(PLAN):
        return inputs
    reusable = {
        before.role: artifact
        for before in read_plan(at).inputs
        if before.role in inputs and (artifact := _reusable_input(before, at, inputs[before.role])) is not None
    }
    return {**inputs, **reusable}


def _reusable_input(before: Input, at: Place, now: Artifact) -> Artifact | None:
    """The earlier input, if it exists and has the same config and the same inputs as the new one."""
    if before.place(at) == now.place or not now.has_rows:
        return None
    try:
        earlier = open_artifact(before.place(at), now.plan.kind)
    except MaskmillError:
        return None
    origins, new_origins = (
        {origin.role: origin.digest for origin in artifact.plan.inputs} for artifact in (earlier, now)
    )
    is_same = earlier.plan.fingerprint == now.plan.fingerprint and origins == new_origins
    return earlier if is_same and before.fields.items() <= earlier.fingerprints.items() else None


def _home(work: Place, name: str, images: Artifact | None) -> Place:
    """The directory of a name, or one beside it if its artifact was made from other pictures.

    A fingerprint does not cover the pictures, so that added or repaired pictures go into the existing artifact. Another
    dataset or split gets a directory of its own here.
    """
    at = work.join(name)
    if images is None or not at.exists(PLAN):
        return at
    before = read_plan(at).input("images").place(at)
    if before == images.place or _has_pictures(before, images):
        return at
    return work.join(f"{name}-{images.plan.fingerprint[:12]}")


def _has_pictures(before: Place, images: Artifact) -> bool:
    """Whether the images artifact at `before` lists the same pictures: masks or a limit may have changed."""
    columns = ["id", "sha256"]
    try:
        return open_artifact(before, "images").rows(columns).equals(images.rows(columns))
    except MaskmillError:  # it is gone, so its pictures are unknown
        return False
