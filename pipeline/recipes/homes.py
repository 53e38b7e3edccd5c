"""The directory in WORK where an artifact of a recipe lies, named by its fingerprint.

The settings decide the name, so another threshold gives other labels beside the old ones, made from the same tokens.
A fingerprint does not cover the pictures themselves (see `_home`), nor which fields a stage with optional fields has
(see `home_of`). A long computation, such as a checkpoint, gets a new directory when its inputs have changed (see
`_long_home`); the old one is never overwritten.
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
    """Fields are added to the existing artifact. If it has a field with other content, such as from other blocks, it
    stays as it is and the requested field goes into an artifact beside it."""
    name = f"{stage.kind}-{fingerprint(header_of(stage, config, inputs))[:12]}"
    at = _home(work, name, inputs.get("images"))
    if isinstance(stage, WholeStage):
        return _long_home(work, name, at, stage, config, inputs) if stage.takes_long else at
    if not stage.selects:
        return at
    request = ask(stage, config, inputs)
    while at.exists(PLAN) and (
        others := conflicting_fields(merge_existing_fields(request, plan := read_plan(at)), plan)
    ):
        name += f"-{digest_of({field.name: request.field_fingerprint(field) for field in others})[:12]}"
        at = _home(work, name, inputs.get("images"))
    return at


def _long_home(work: Place, name: str, at: Place, stage: WholeStage, config: Any, inputs: Inputs) -> Place:
    if not at.exists(PLAN) or not find_changed_inputs(read_plan(at), reuse_inputs(at, inputs)):
        return at
    read = inputs_of(at, inputs, header_of(stage, config, inputs))
    contents = {one.role: input_digest(inputs[one.role], one.fields) or one.digest for one in read}
    return work.join(f"{name}-{digest_of(contents)[:12]}")


def reuse_inputs(at: Place, inputs: Inputs) -> Inputs:
    """The inputs, with those that the artifact was made from where they hold the same content as the new ones. The
    artifact then keeps its bytes and need not be checked again."""
    if not at.exists(PLAN):
        return inputs
    before = {read.role: read for read in read_plan(at).inputs}
    reusable = {role: _reusable_input(before[role], at, inputs[role]) for role in before if role in inputs}
    return {role: reusable.get(role) or artifact for role, artifact in inputs.items()}


def _reusable_input(before: Input, at: Place, now: Artifact) -> Artifact | None:
    """The earlier input, if it still exists with the same configuration and the same inputs as the new one."""
    if before.place(at) == now.place or not now.has_rows:
        return None
    try:
        earlier = open_artifact(before.place(at), now.plan.kind)
    except MaskmillError:
        return None
    made_from = [{read.role: read.digest for read in one.plan.inputs} for one in (earlier, now)]
    is_same = earlier.plan.fingerprint == now.plan.fingerprint and made_from[0] == made_from[1]
    return earlier if is_same and before.fields.items() <= earlier.fingerprints.items() else None


def _home(work: Place, name: str, images: Artifact | None) -> Place:
    """The directory with this name, or one beside it if that holds an artifact of other pictures.

    A fingerprint covers settings and not pictures, so that added or repaired pictures go into the existing artifact.
    This function separates the same stages over another dataset or another split.
    """
    at = work.join(name)
    if images is None or not at.exists(PLAN):
        return at
    before = read_plan(at).input("images").place(at)
    if before == images.place or _has_pictures(before, images):
        return at
    return work.join(f"{name}-{images.plan.fingerprint[:12]}")


def _has_pictures(before: Place, images: Artifact) -> bool:
    """Whether the earlier images artifact lists the same pictures; masks or limits may differ."""
    columns = ["id", "sha256"]
    try:
        return open_artifact(before, "images").rows(columns).equals(images.rows(columns))
    except MaskmillError:  # it is gone, so this cannot be checked
        return False
