"""The artifacts of a recipe, one after the other: each in a directory of WORK that its fingerprint names.

What is asked for decides the name, so another threshold gives other labels beside the old ones, made from the same
tokens. What a fingerprint does not tell apart are the pictures themselves (see `_home`) and, of a stage whose fields
can be added to, which of them there are (see `_chosen_home`). What took long, such as a checkpoint, is made anew beside
the old where what it read has changed (see `_long_home`), and nothing overwrites the old.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ...manifests import sealed
from ...manifests.artifact import Artifact, open_artifact, read_summary
from ...manifests.errors import ConfigError, MaskmillError, UnfinishedArtifact
from ...manifests.fingerprint import fingerprint
from ...manifests.place import Place
from ...manifests.plan import PLAN, Input, read_plan
from ...manifests.sealed import digest_of
from ...stages.stage import Inputs, Stage, WholeStage
from ..job import RunOptions
from ..planning import ask, beside_held, content_of, header_of, held_otherwise, inputs_of, is_as_read
from ..recipe import Recipe
from ..run import Outcome, run as run_units
from ..whole import changed_inputs, run_whole
from .schema import nearest
from .steps import Step

LAST_RUN = "last-run.json"
State = Literal["done", "would run", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a step."""

    stage: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would become of a step."""

    stage: str
    state: State
    why: str
    at: str = ""  # where its artifact is or would be made, where that can be told


@dataclass(frozen=True, slots=True)
class _Target:
    """A step whose inputs are there."""

    stage: Stage | WholeStage
    config: Any
    inputs: Inputs
    at: Place

    def is_same(self, other: "_Target") -> bool:
        """The same settings, and inputs that have not changed between the two."""
        ours, theirs = ({role: each.digest for role, each in one.inputs.items()} for one in (self, other))
        return (self.at, self.config, ours) == (other.at, other.config, theirs)


def run_recipe(recipe: Recipe, work: Place, options: RunOptions, start: str = "") -> Iterator[Made]:
    """Runs every step, or those from `start` on, and gives what became of each as it ends."""
    made: list[Made] = []
    for each in run_steps(recipe, work, options, start):
        made.append(each)
        yield each
    write_last_run(work, recipe, made)


def run_steps(
    recipe: Recipe, work: Place, options: RunOptions, start: str = "", ended: "Ended | None" = None
) -> Iterator[Made]:
    """As `run_recipe`, without noting it as the last run. Steps that `ended` has of other recipes are not run again."""
    early = _before(recipe, start)
    ended = ended or Ended()
    made: dict[str, Artifact] = {}
    for step in recipe.steps:
        with _named(step):
            target = _target(recipe, step, work, made)
            run = partial(_found, target, start) if step.name in early else partial(_run, target, options)
            outcome = ended.once(target, run)
            made[step.name] = open_artifact(outcome.at, target.stage.kind)
        yield Made(step.name, outcome)


class Ended:
    """How the steps ended that several recipes have in common: each is run once, whatever came of it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Target, Outcome | MaskmillError]] = {}  # by where it was made

    def once(self, target: _Target, run: Callable[[], Outcome]) -> Outcome:
        """Raises again what was raised then."""
        known = self._known.get(target.at.uri)
        if known is None or not known[0].is_same(target):
            try:
                outcome = run()
            except MaskmillError as error:
                self._known[target.at.uri] = target, error
                raise
            self._known[target.at.uri] = target, outcome
            return outcome
        if isinstance(known[1], MaskmillError):
            raise type(known[1])(str(known[1]))
        units = known[1].units_run + known[1].units_skipped
        return replace(known[1], units_run=0, units_skipped=units, seconds=0.0)


def write_last_run(
    work: Place, recipe: Recipe, made: Sequence[Made], combinations: Sequence[Sequence[Made]] = ()
) -> None:
    """What is looked at as the last run; of a sweep the last combination, and all of them to be kept."""
    several = {"combinations": [_names(each) for each in combinations]} if combinations else {}
    sealed.write(work, LAST_RUN, {"title": recipe.heading.title, "artifacts": _names(made), **several})


def _names(made: Sequence[Made]) -> dict[str, str]:
    return {each.stage: each.outcome.at.uri.rpartition("/")[2] for each in made}


def foresee_recipe(recipe: Recipe, work: Place, start: str = "") -> Iterator[Foreseen]:
    """What `run_recipe` would do, as far as the files in WORK tell; writes nothing, and looks at no picture."""
    early = _before(recipe, start)
    made: dict[str, Artifact] = {}
    undone = ""
    for step in recipe.steps:
        if undone:
            yield Foreseen(step.name, "cannot be told", f"before {undone} has run")
            continue
        with _named(step):
            target = _target(recipe, step, work, made)
            if step.name in early:
                _found(target, start)
            missing = _missing(target)
            if not missing:
                made[step.name] = open_artifact(target.at, target.stage.kind)
        if missing:
            undone = step.name
            yield Foreseen(step.name, "would run", missing, target.at.uri)
        else:
            yield Foreseen(step.name, "done", "finished and of the same inputs", target.at.uri)


def _before(recipe: Recipe, start: str) -> list[str]:
    names = [step.name for step in recipe.steps]
    if start and start not in names:
        raise ConfigError(f"--from {start} is no stage of this recipe; {nearest(start, names)}")
    return names[: names.index(start)] if start else []


@contextmanager
def _named(step: Step) -> Iterator[None]:
    """Says of an error which stage it was."""
    try:
        yield
    except MaskmillError as error:
        raise type(error)(f"{step.name}: {error}") from error


def _target(recipe: Recipe, step: Step, work: Place, made: Mapping[str, Artifact]) -> _Target:
    stage, values = step.stage, recipe.tables[step.name]
    given = step.given_artifacts(values)
    inputs = {role: made[recipe.source_of(step, role)] for role in step.reads if role not in given} | dict(given)
    config = step.config(values, inputs)
    at = _chosen_home(work, stage, config, inputs)
    return _Target(stage, config, _as_before(at, inputs), at)


def _chosen_home(work: Place, stage: Stage | WholeStage, config: Any, inputs: Inputs) -> Place:
    """Fields are added to the artifact that there is; but one that holds a field otherwise, such as of other blocks,
    stays as it is, and an artifact with that field as it is wanted is made beside it."""
    name = f"{stage.kind}-{fingerprint(header_of(stage, config, inputs))[:12]}"
    at = _home(work, name, inputs.get("images"))
    if isinstance(stage, WholeStage):
        return _long_home(work, name, at, stage, config, inputs) if stage.takes_long else at
    if not stage.selects:
        return at
    asked = ask(stage, config, inputs)
    while at.exists(PLAN) and (others := held_otherwise(beside_held(asked, plan := read_plan(at)), plan)):
        name += f"-{digest_of({each.name: asked.field_fingerprint(each) for each in others})[:12]}"
        at = _home(work, name, inputs.get("images"))
    return at


def _long_home(work: Place, name: str, at: Place, stage: WholeStage, config: Any, inputs: Inputs) -> Place:
    if not at.exists(PLAN) or not changed_inputs(read_plan(at), _as_before(at, inputs)):
        return at
    read = inputs_of(at, inputs, header_of(stage, config, inputs))
    contents = {each.role: content_of(inputs[each.role], each.fields) or each.digest for each in read}
    return work.joined(f"{name}-{digest_of(contents)[:12]}")


def _as_before(at: Place, inputs: Inputs) -> Inputs:
    """What an artifact was made from stays its input, in the place of one that holds the same fields and others: what
    was made of it need not be gone through again, and keeps its bytes."""
    if not at.exists(PLAN):
        return inputs
    kept = {each.role: _standing(each, at, inputs[each.role]) for each in read_plan(at).inputs if each.role in inputs}
    return {**inputs, **{role: artifact for role, artifact in kept.items() if artifact is not None}}


def _standing(before: Input, at: Place, now: Artifact) -> Artifact | None:
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
    at = work.joined(name)
    if images is None or not at.exists(PLAN):
        return at
    before = read_plan(at).input("images").place(at)
    if before == images.place or _has_pictures(before, images):
        return at
    return work.joined(f"{name}-{images.plan.fingerprint[:12]}")


def _has_pictures(before: Place, images: Artifact) -> bool:
    """Whether what lay there lists the same pictures, as where masks were added or a limit has changed."""
    columns = ["id", "sha256"]
    try:
        return open_artifact(before, "images").rows(columns).equals(images.rows(columns))
    except MaskmillError:  # it has gone, so nothing tells
        return False


def _run(target: _Target, options: RunOptions) -> Outcome:
    inputs = {role: artifact.place.uri for role, artifact in target.inputs.items()}
    if isinstance(target.stage, WholeStage):
        return run_whole(target.stage, target.config, inputs, target.at.uri, options.break_lock)
    return run_units(target.stage, target.config, inputs, target.at.uri, options)


def _found(target: _Target, start: str) -> Outcome:
    """The outcome of an artifact that a run starts behind."""
    missing = _missing(target)
    if missing:
        raise UnfinishedArtifact(
            f"--from {start} needs {target.at}, which is {missing}; start --from {target.stage.name}, or leave it out"
        )
    found = open_artifact(target.at, target.stage.kind)
    units = sum(found.plan.layout(group).num_units for group in found.plan.groups) or 1
    summary = found.summary
    return Outcome(
        found.place, found.plan.kind, found.plan.num_rows, summary.counts, 0, units, summary.warnings, 0.0, True
    )


def _missing(target: _Target) -> str:
    """Why a step's artifact is not done, or nothing."""
    if not target.at.exists(PLAN):
        return "not there yet"
    plan = read_plan(target.at)
    if read_summary(target.at) is None:
        return "begun and not finished"
    changed = [each.role for each in plan.inputs if not _is_as_read(target, each)]
    if changed:
        return f"made before its {' and '.join(changed)} changed"
    lacking = [name for name in _field_names(target) if name not in plan.fields]
    return f"without {', '.join(lacking)}" if lacking else ""


def _is_as_read(target: _Target, before: Input) -> bool:
    return before.role in target.inputs and is_as_read(before, target.inputs[before.role])


def _field_names(target: _Target) -> list[str]:
    stage = target.stage
    return [] if isinstance(stage, WholeStage) else [each.name for each in stage.fields(target.config, target.inputs)]
