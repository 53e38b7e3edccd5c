"""Running a grid, and foreseeing it: what combinations share is made once, and one that fails ends only itself."""

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
    """What became of a combination."""

    combination: Combination
    made: Sequence[Made]
    error: MaskmillError | None

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys(each for made in self.made for each in made.outcome.warnings))

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
    """Every combination as `maskmill run` would run it; tells of each that begins and of each step that ends."""
    known, ran = Ended(), list[Ran]()
    for combination in grid:
        begun(combination)
        made, error = list[Made](), None
        try:
            for each in run_steps(combination.recipe, work, options, start, known):
                made.append(each)
                ended(each)
        except MaskmillError as raised:
            error = raised
        ran.append(Ran(combination, made, error))
        complete = [each for each in ran if not each.error]
        if complete:
            write_last_run(work, complete[-1].combination.recipe, complete[-1].made, [each.made for each in ran])
        yield ran[-1]


def worst_code(ran: Sequence[Ran]) -> int:
    """A failure is worse than a warning; of several failures the highest code."""
    failures = [each.error.exit_code for each in ran if each.error]
    return max(failures) if failures else max(each.exit_code for each in ran)


@dataclass(frozen=True, slots=True)
class StepForeseen:
    """What would become of a step in all of the combinations."""

    stage: str
    artifacts: int
    states: dict[StepState, int]  # of how many artifacts


@dataclass(frozen=True, slots=True)
class GridForeseen:
    steps: Sequence[StepForeseen]
    combinations: Sequence[Sequence[Foreseen]]  # steps of each


def foresee_grid(grid: Sequence[Combination], work: Place, start: str = "") -> GridForeseen:
    """As far as settings and the files in WORK tell; writes nothing, and looks at no picture."""
    foreseen: list[Sequence[Foreseen]] = []
    states: dict[str, dict[str, StepState]] = {}  # step → which artifact → its state
    for combination in grid:
        foreseen.append(list(foresee_recipe(combination.recipe, work, start)))
        above: dict[str, str] = {}
        for step, found in zip(combination.recipe.steps, foreseen[-1], strict=True):
            above[step.name] = _origin(combination.recipe, step, above)
            states.setdefault(step.name, {})[above[step.name]] = found.state
    return GridForeseen([_count_states(name, list(found.values())) for name, found in states.items()], foreseen)


def _origin(recipe: Recipe, step: RecipeStep, above: dict[str, str]) -> str:
    """All that decides an artifact which a recipe has a say in: equal for artifacts that are one."""
    given = {role for key, role in step.role_keys.items() if key in recipe.tables[step.name]}
    read: dict[str, Any] = {role: above[recipe.source_of(step, role)] for role in step.reads if role not in given}
    return digest_of(exact([step.name, recipe.tables[step.name], read]))


def _count_states(name: str, found: Sequence[StepState]) -> StepForeseen:
    return StepForeseen(name, len(found), {state: found.count(state) for state in dict.fromkeys(found)})
