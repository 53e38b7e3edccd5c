"""Runs or foresees a grid. Shared artifacts are made once; a combination that fails does not stop the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ....manifests.errors import MaskmillError
from ....manifests.files.place import Place
from ....manifests.files.sealed import digest_of
from ...running.options import RunOptions
from ..chain import Ended, Foreseen, Made, StepState, foresee_recipe, run_steps, write_last_run
from ..recipe import Recipe
from ..steps import RecipeStep
from .grid import Combination, exact

WARNED = 6


@dataclass(frozen=True, slots=True)
class Ran:
    combination: Combination
    made: Sequence[Made]
    error: MaskmillError | None

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys(warning for made in self.made for warning in made.spelled_outcome.warnings))

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else WARNED if self.warnings else 0


def run_grid(
    grid: Sequence[Combination],
    work: Place,
    options: RunOptions,
    start: str,
    begun: Callable[[Combination], None],
    ended: Callable[[Made], None],
) -> Iterator[Ran]:
    """Runs every combination as `maskmill run` would. Calls `begun` before each, and `ended` after each step."""
    known, ran = Ended(), list[Ran]()
    for combination in grid:
        begun(combination)
        made, error = list[Made](), None
        try:
            for step in run_steps(combination.recipe, work, options, start, known):
                made.append(step)
                ended(step)
        except MaskmillError as raised:
            error = raised
        ran.append(Ran(combination, made, error))
        complete = [one for one in ran if not one.error]
        if complete:
            write_last_run(work, complete[-1].combination.recipe, complete[-1].made, [one.made for one in ran])
        yield ran[-1]


def worst_code(ran: Sequence[Ran]) -> int:
    """The highest exit code of the failures, else 6 if there is a warning."""
    failures = [one.error.exit_code for one in ran if one.error]
    return max(failures) if failures else max(one.exit_code for one in ran)


@dataclass(frozen=True, slots=True)
class StepForeseen:
    stage: str
    artifacts: int
    states: dict[StepState, int]  # state → artifacts


@dataclass(frozen=True, slots=True)
class GridForeseen:
    steps: Sequence[StepForeseen]
    combinations: Sequence[Sequence[Foreseen]]  # the steps of each


def foresee_grid(grid: Sequence[Combination], work: Place, start: str = "") -> GridForeseen:
    """From settings and the files in WORK; writes nothing and reads no pictures."""
    foreseen: list[Sequence[Foreseen]] = []
    states: dict[str, dict[str, StepState]] = {}  # step → artifact → state
    for combination in grid:
        foreseen.append(list(foresee_recipe(combination.recipe, work, start)))
        above: dict[str, str] = {}
        for step, foreseen_step in zip(combination.recipe.steps, foreseen[-1], strict=True):
            above[step.name] = _origin(combination.recipe, step, above)
            states.setdefault(step.name, {})[above[step.name]] = foreseen_step.state
    steps = [_count_states(name, list(by_artifact.values())) for name, by_artifact in states.items()]
    return GridForeseen(steps, foreseen)


def _origin(recipe: Recipe, step: RecipeStep, above: dict[str, str]) -> str:
    """Everything in the recipe that decides an artifact: equal for the same artifact."""
    given = {role for key, role in step.role_keys.items() if key in recipe.tables[step.name]}
    roles = [role for role in recipe.roles_made(step) if role not in given]
    read: dict[str, Any] = {role: above[recipe.source_of(step, role)] for role in roles}
    return digest_of(exact([step.name, recipe.tables[step.name], read]))


def _count_states(name: str, states: Sequence[StepState]) -> StepForeseen:
    return StepForeseen(name, len(states), {state: states.count(state) for state in dict.fromkeys(states)})
