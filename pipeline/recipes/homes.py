"""Where in WORK an artifact of a recipe lies: in a directory that its fingerprint names.

What is asked for decides the name, so another threshold gives other labels beside the old ones, made from the same
tokens. What a fingerprint does not tell apart are the pictures themselves (see `_home`) and, of a stage whose fields
can be added to, which of them there are (see `home_of`). What took long, such as a checkpoint, is made anew beside the
old where what it read has changed (see `_long_home`), and nothing overwrites the old.
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
    """Fields are added to the artifact that there is; but one that holds a field otherwise, such as of other blocks,
    stays as it is, and an artifact with that field as it is wanted is made beside it."""
    name = f"{stage.kind}-{fingerprint(header_of(stage, config, inputs))[:12]}"
    at = _home(work, name, inputs.get("images"))
    if isinstance(stage, WholeStage):
        return _long_home(work, name, at, stage, config, inputs) if stage.takes_long else at
    if not stage.selects:
        return at
    asked = ask(stage, config, inputs)
    while at.exists(PLAN) and (others := conflicting_fields(merge_existing_fields(asked, plan := read_plan(at)), plan)):
        name += f"-{digest_of({each.name: asked.field_fingerprint(each) for each in others})[:12]}"
        at = _home(work, name, inputs.get("images"))
    return at


def _long_home(work: Place, name: str, at: Place, stage: WholeStage, config: Any, inputs: Inputs) -> Place:
    if not at.exists(PLAN) or not find_changed_inputs(read_plan(at), reuse_inputs(at, inputs)):
        return at
    read = inputs_of(at, inputs, header_of(stage, config, inputs))
    contents = {each.role: input_digest(inputs[each.role], each.fields) or each.digest for each in read}
    return work.join(f"{name}-{digest_of(contents)[:12]}")


def reuse_inputs(at: Place, inputs: Inputs) -> Inputs:
    """What an artifact was made from stays its input, in the place of one that holds the same fields and others: what
    was made of it need not be gone through again, and keeps its bytes."""
    if not at.exists(PLAN):
        return inputs
    kept = {
        each.role: _reusable_input(each, at, inputs[each.role]) for each in read_plan(at).inputs if each.role in inputs
    }
    return {**inputs, **{role: artifact for role, artifact in kept.items() if artifact is not None}}


def _reusable_input(before: Input, at: Place, now: Artifact) -> Artifact | None:
    """An input as it was, where it is there, of the same configuration and itself made of the same as the one now."""
    if before.place(at) == now.place or not now.has_rows:
        return None
    try:
        found = open_artifact(before.place(at), now.plan.kind)
    except MaskmillError:
        return None
    made_of = [{each.role: each.digest for each in some.plan.inputs} for some in (found, now)]
    is_same = found.plan.fingerprint == now.plan.fingerprint and made_of[0] == made_of[1]
    return found if is_same and before.fields.items() <= found.fingerprints.items() else None


def _home(work: Place, name: str, images: Artifact | None) -> Place:
    """The directory of a name; of other pictures than those that its artifact was made of, a directory beside it.

    A fingerprint is of what is asked for and not of the pictures, so that one that is added or mended goes into the
    artifact that there is. The same stages over another dataset, or another split, are told apart here.
    """
    at = work.join(name)
    if images is None or not at.exists(PLAN):
        return at
    before = read_plan(at).input("images").place(at)
    if before == images.place or _has_pictures(before, images):
        return at
    return work.join(f"{name}-{images.plan.fingerprint[:12]}")


def _has_pictures(before: Place, images: Artifact) -> bool:
    """Whether what lay there lists the same pictures, as where masks were added or a limit has changed."""
    columns = ["id", "sha256"]
    try:
        return open_artifact(before, "images").rows(columns).equals(images.rows(columns))
    except MaskmillError:  # it has gone, so nothing tells
        return False
