"""Make the artifacts of a recipe one after the other, each in its own directory of WORK."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ...manifests.artifact.artifact import Artifact, open_artifact, read_summary
from ...manifests.artifact.plan import PLAN, read_plan
from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError, MaskmillError, UnfinishedArtifact
from ...manifests.files import sealed
from ...manifests.files.place import Place
from ...stages.stage import Inputs, Stage, WholeStage
from ..running.options import RunOptions
from ..running.planning import is_as_read
from ..running.run import Outcome, run as run_units
from ..running.whole import run_whole
from .homes import home_of, reuse_inputs
from .recipe import Recipe
from .spelling import spell, spell_errors
from .steps import RecipeStep, recipe_steps

LAST_RUN = "last-run.json"
StepState = Literal["done", "would run", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Made:
    """The outcome of a step."""

    stage: str
    outcome: Outcome

    @property
    def spelled_outcome(self) -> Outcome:
        """With options in warnings and notices as `run` takes them."""
        command = recipe_steps()[self.stage.partition("-view")[0]].command
        warnings, notices = (
            tuple(spell(sentence, command, "set") for sentence in sentences)
            for sentences in (self.outcome.warnings, self.outcome.notices)
        )
        return replace(self.outcome, warnings=warnings, notices=notices)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a step would do."""

    stage: str
    state: StepState
    why: str
    at: str = ""  # the place of its artifact, if it is known


@dataclass(frozen=True, slots=True)
class _Target:
    """A step whose inputs exist."""

    stage: Stage | WholeStage
    config: Any
    inputs: Inputs
    at: Place

    def is_same(self, other: "_Target") -> bool:
        """Whether the settings and the contents of the inputs are the same."""
        ours, theirs = ({role: artifact.digest for role, artifact in target.inputs.items()} for target in (self, other))
        return (self.at, self.config, ours) == (other.at, other.config, theirs)


def run_recipe(recipe: Recipe, work: Place, options: RunOptions, start: str = "") -> Iterator[Made]:
    """Runs every step, or those from `start` on, and yields the outcome of each as it ends."""
    made: list[Made] = []
    for step in run_steps(recipe, work, options, start):
        made.append(step)
        yield step
    write_last_run(work, recipe, made)


def run_steps(
    recipe: Recipe, work: Place, options: RunOptions, start: str = "", ended: "Ended | None" = None
) -> Iterator[Made]:
    """Like `run_recipe`, but does not record the last run. Steps that ended in other recipes of `ended` are not
    repeated."""
    early = _before(recipe, start)
    ended = ended or Ended()
    made: dict[str, Artifact] = {}
    for step in recipe.steps:
        with _name_step_in_errors(step):
            target = _target(recipe, step, work, made)
            run = partial(_existing_outcome, target, start) if step.name in early else partial(_run, target, options)
            outcome = ended.once(target, run)
            made[step.name] = open_artifact(outcome.at, target.stage.kind)
        yield Made(step.name, outcome)


class Ended:
    """The outcomes of steps that several recipes share: each step runs once, even if it fails."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Target, Outcome | MaskmillError]] = {}  # by the place of the artifact

    def once(self, target: _Target, run: Callable[[], Outcome]) -> Outcome:
        """Runs a step, or repeats its earlier outcome or error."""
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
    """Records the last run: the last combination of a sweep, and all combinations, whose artifacts are kept."""
    several = {"combinations": [_names(steps) for steps in combinations]} if combinations else {}
    sealed.write(work, LAST_RUN, {"title": recipe.heading.title, "artifacts": _names(made), **several})


def _names(steps: Sequence[Made]) -> dict[str, str]:
    return {step.stage: step.outcome.at.uri.rpartition("/")[2] for step in steps}


def foresee_recipe(recipe: Recipe, work: Place, start: str = "") -> Iterator[Foreseen]:
    """What `run_recipe` would do, judging by the files in WORK; writes nothing and opens no picture."""
    early = _before(recipe, start)
    made: dict[str, Artifact] = {}
    undone = ""
    for step in recipe.steps:
        if undone:
            yield Foreseen(step.name, "cannot be told", f"before {undone} has run")
            continue
        with _name_step_in_errors(step):
            target = _target(recipe, step, work, made)
            if step.name in early:
                _existing_outcome(target, start)
            missing = _missing(target)
            if not missing:
                made[step.name] = open_artifact(target.at, target.stage.kind)
        if missing:
            undone = step.name
            yield Foreseen(step.name, "would run", missing, target.at.uri)
        else:
            yield Foreseen(step.name, "done", "finished, with the same inputs", target.at.uri)


def _before(recipe: Recipe, start: str) -> list[str]:
    names = [step.name for step in recipe.steps]
    if start and start not in names:
        raise ConfigError(f"--from {start} is not a stage of this recipe; {nearest(start, names)}")
    return names[: names.index(start)] if start else []


def _name_step_in_errors(step: RecipeStep) -> AbstractContextManager[None]:
    return spell_errors(step.command, "set", f"{step.name}: ")


def _target(recipe: Recipe, step: RecipeStep, work: Place, made: Mapping[str, Artifact]) -> _Target:
    stage, values = step.command.stage, recipe.tables[step.name]
    config, given = step.config(values), step.artifacts_named(values)
    roles = [role for role in recipe.roles_made(step) if role not in given and role not in stage.skips(config)]
    inputs = {role: made[recipe.source_of(step, role)] for role in roles} | dict(given)
    config = stage.resolve(config, inputs)
    at = home_of(work, stage, config, inputs)
    return _Target(stage, config, reuse_inputs(at, inputs), at)


def _run(target: _Target, options: RunOptions) -> Outcome:
    inputs = {role: artifact.place.uri for role, artifact in target.inputs.items()}
    if isinstance(target.stage, WholeStage):
        return run_whole(target.stage, target.config, inputs, target.at.uri, options.break_lock)
    return run_units(target.stage, target.config, inputs, target.at.uri, options)


def _existing_outcome(target: _Target, start: str) -> Outcome:
    """The outcome of an artifact before `start`, which must be done."""
    missing = _missing(target)
    if missing:
        raise UnfinishedArtifact(
            f"--from {start} needs {target.at}, which is {missing}; start --from {target.stage.name}, or leave it out"
        )
    artifact = open_artifact(target.at, target.stage.kind)
    plan, summary = artifact.plan, artifact.summary
    units = sum(plan.layout(group).num_units for group in plan.groups) or 1
    return Outcome(artifact.place, plan.kind, plan.num_rows, summary.counts, 0, units, summary.warnings, 0.0, True)


def _missing(target: _Target) -> str:
    """Why a step's artifact is not done, or ""."""
    if not target.at.exists(PLAN):
        return "not there yet"
    plan = read_plan(target.at)
    if read_summary(target.at) is None:
        return "begun and not finished"
    now, stage = target.inputs, target.stage
    changed = [read.role for read in plan.inputs if read.role not in now or not is_as_read(read, now[read.role])]
    if changed:
        return f"made before its {' and '.join(changed)} changed"
    fields = [] if isinstance(stage, WholeStage) else stage.fields(target.config, now)
    lacking = [field.name for field in fields if field.name not in plan.fields]
    return f"without {', '.join(lacking)}" if lacking else ""
