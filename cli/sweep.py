"""`maskmill sweep RECIPE.toml --set STAGE.KEY=V1,V2,…`."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..manifests.counts import count_of
from .answers import echo_json, show_outcome
from .run import recipe_command, recipe_options, recipe_reader, work_place
from .sweep_table import rows_json, show_rows

if TYPE_CHECKING:
    from ..pipeline.recipes.chain import Made
    from ..pipeline.recipes.sweep.grid import Axes, Combination
    from ..pipeline.recipes.sweep.running import GridForeseen, Ran
    from ..pipeline.recipes.sweep.worth import SweepRow


@recipe_command(
    "Show what would be made and what is shared; write nothing.",
    metavar="STAGE.KEY=V1,V2,…",
    required=True,
    help="Values to try; a single value applies to all. Write values with commas as a TOML list: "
    """'refine.preset=["15,0.001", "toco"]'.""",
)
def sweep(
    recipe: str | None, images: str, work: str, start: str, dry_run: bool, settings: tuple[str, ...], **values: Any
) -> int:
    """Run a recipe with every combination of the values of all --set, and compare them in one table.

    All combinations are checked before any runs. Each runs like `maskmill run`, in the same WORK; shared artifacts are
    made once. If a combination fails, the others still run; the exit code is the highest of the failures, else 6 if
    there is a warning. Rerun to resume.
    """
    from ..pipeline.recipes.sweep.grid import build_grid, parse_axes
    from ..pipeline.recipes.sweep.running import foresee_grid, run_grid, worst_code
    from ..pipeline.recipes.sweep.worth import Judge

    as_json = values["as_json"]
    axes, read = parse_axes(settings), recipe_reader(recipe, images)
    if not as_json:
        click.echo(_axes_text(axes))
    grid, at = build_grid(axes, read), work_place(recipe, work)
    if dry_run:
        return _show_foreseen(axes, grid, foresee_grid(grid, at, start), as_json)
    options = recipe_options(grid[0].recipe.run, values)
    begun, ended = (_ignore, _ignore) if as_json else (partial(_show_begun, len(grid)), _show_ended)
    ran, rows, judge = list["Ran"](), list["SweepRow"](), Judge()
    for result in run_grid(grid, at, options, start, begun, ended):
        if result.error:
            combination = result.combination
            click.echo(f"maskmill: combination {combination.number}, {combination}: {result.error}", err=True)
        ran.append(result)
        rows.append(judge.row(result))
    if as_json:
        echo_json({**_axes_json(axes), **rows_json(rows)})
    else:
        show_rows(rows)
    return worst_code(ran)


def _axes_text(axes: "Axes") -> str:
    """The number of combinations, printed before they are checked, which may take a while."""
    number, lists = len(axes), " × ".join(f"{len(axis)} of {axis[0].name}" for axis in axes.swept)
    fixed = f", all with {' '.join(map(str, axes.fixed))}" if axes.fixed else ""
    return f"{count_of(number, 'combination')}{f': {lists}' if lists else ''}{fixed}"


def _axes_json(axes: "Axes") -> dict[str, Any]:
    return {
        "swept": {axis[0].name: [setting.value for setting in axis] for axis in axes.swept},
        "fixed": {setting.name: setting.value for setting in axes.fixed},
    }


def _ignore(step: Any) -> None: ...


def _show_begun(number: int, combination: "Combination") -> None:
    click.echo(f"{combination.number} of {number}: {combination}")


def _show_ended(made: "Made") -> None:
    """Prints a line for a step that ran; none for one that was done already. Warnings are printed once, below the
    table."""
    if made.outcome.units_run:
        show_outcome(dataclasses.replace(made.spelled_outcome, warnings=()), as_json=False)


def _show_foreseen(axes: "Axes", grid: "Sequence[Combination]", foreseen: "GridForeseen", as_json: bool) -> int:
    if as_json:
        combinations = [
            {"values": {setting.name: setting.value for setting in combination.settings}, "steps": steps}
            for combination, steps in zip(grid, dataclasses.asdict(foreseen)["combinations"], strict=True)
        ]
        steps = [dataclasses.asdict(step) for step in foreseen.steps]
        echo_json({**_axes_json(axes), "steps": steps, "combinations": combinations})
        return 0
    for step in foreseen.steps:
        shared = "shared by all" if step.artifacts == 1 and len(grid) > 1 else _artifacts(step.artifacts, len(grid))
        states = ", ".join(f"{state}" if step.artifacts == 1 else f"{n} {state}" for state, n in step.states.items())
        click.echo(f"{step.stage}: {shared}; {states}")
    return 0


def _artifacts(number: int, combinations: int) -> str:
    if number == combinations:
        return "one for each" if number > 1 else "1 artifact"
    return f"{count_of(number, 'artifact')} for {count_of(combinations, 'combination')}"
