"""`maskmill run RECIPE.toml`."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..manifests.artifact.artifact import open_artifact
from ..manifests.files.place import Place, place, split
from ..pipeline.running.options import RunOptions
from .answers import echo_json, show_metrics, show_outcome, show_training_scores, show_warnings
from .help import SectionedCommand
from .options import HOW, WHERE, run_options, running

if TYPE_CHECKING:
    from ..pipeline.recipes.chain import Foreseen, Made
    from ..pipeline.recipes.recipe import Recipe, Setting

WORK = "maskmill-work"
RESULTS = ("manifest", "train")  # stages whose artifacts are the results of a recipe


def recipe_command(dry_run: str, **settings: Any) -> Callable[[Callable[..., int]], click.Command]:
    """A decorator for a command that runs a recipe, with its own help for --dry-run and its own --set."""
    own: list[click.Parameter] = [
        click.Argument(["recipe"], metavar="RECIPE.toml", required=False, help="Recipe file."),
        click.Option(["--images"], metavar="DIR", default="", help="Folder of pictures, run with the recipe `folder`."),
        click.Option(
            ["--work"],
            metavar="DIR",
            default="",
            help=f"Folder of all artifacts; by default {WORK} beside the recipe, or in this folder with --images.",
        ),
        click.Option(
            ["--from", "start"], metavar="STAGE", default="", help="Start at this stage; those before must be done."
        ),
        click.Option(["--dry-run"], is_flag=True, help=dry_run),
        click.Option(["--set", "settings"], multiple=True, **settings),
    ]
    return click.command(cls=SectionedCommand, params=own, running=running(["update", *WHERE, *HOW]))


@recipe_command(
    "Show whether each stage is done or would run; write nothing.",
    metavar="STAGE.KEY=VALUE",
    help="Override a recipe setting; repeatable, such as refine.threshold=0.5.",
)
def run(
    recipe: str | None, images: str, work: str, start: str, dry_run: bool, settings: tuple[str, ...], **values: Any
) -> int:
    """Run every stage of a recipe and skip what is done. The whole recipe is checked before anything runs."""
    from ..pipeline.recipes.chain import foresee_recipe, run_recipe

    read = recipe_reader(recipe, images)(settings)
    at = work_place(recipe, work)
    if dry_run:
        return _show_foreseen(list(foresee_recipe(read, at, start)), values["as_json"])
    options = recipe_options(read.run, values)
    return _show_made(run_recipe(read, at, options, start), values["as_json"])


def recipe_reader(recipe: str | None, images: str) -> "Callable[[Sequence[str | Setting]], Recipe]":
    """A function from settings to the recipe with these settings."""
    from ..pipeline.recipes import read_shipped_recipe
    from ..pipeline.recipes.recipe import parse_recipe, recipe_bytes

    if bool(recipe) == bool(images):
        raise click.UsageError("Give either a recipe or --images DIR.", click.get_current_context())
    if recipe:
        return partial(parse_recipe, recipe_bytes(recipe), recipe, split(recipe)[0])
    data, root = read_shipped_recipe("folder"), f"index.root={place(images).uri}"
    return lambda settings: parse_recipe(data, f"--images {images}", place("."), (root, *settings))


def work_place(recipe: str | None, work: str) -> Place:
    return place(work) if work else (split(recipe)[0] if recipe else place(".")).join(WORK)


def recipe_options(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> RunOptions:
    """The options of the command line, with the recipe's run options as defaults."""
    context = click.get_current_context()
    typed = {name for name in defaults if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return run_options({**values, **{name: value for name, value in defaults.items() if name not in typed}})


def _show_made(steps: "Iterator[Made]", as_json: bool) -> int:
    """Prints a line as each stage ends, then the place of the result. JSON comes at the end, even if a stage failed."""
    made: list[Made] = []
    try:
        for step in steps:
            made.append(step)
            if not as_json:
                _show_outcome(step)
    finally:
        if as_json:
            outcomes = [(step.stage, step.outcome) for step in made]
            echo_json([{"stage": name, **dataclasses.asdict(out), "at": out.at.uri} for name, out in outcomes])
    if not as_json:
        last = [step for step in made if step.outcome.kind != "metrics"][-1:]
        for step in [step for step in made if step.stage in RESULTS] or last:
            click.echo(f"result: {step.outcome.kind} → {step.outcome.at}")
        _repeat_warnings(made[:-1])
    return max(step.outcome.exit_code for step in made)


def _show_outcome(step: "Made") -> None:
    """Its warnings spell options as `run` takes them."""
    outcome = step.spelled_outcome
    if outcome.kind == "metrics":
        show_metrics(json.loads(open_artifact(outcome.at, "metrics").file("metrics.json")))
    show_training_scores(outcome)
    show_outcome(outcome, as_json=False)


def _repeat_warnings(made: "Sequence[Made]") -> None:
    """Prints the warnings of steps before the last once more, which may have gone by long ago."""
    for step in made:
        warnings = tuple(f"{step.stage}: {warning}" for warning in step.spelled_outcome.warnings)
        show_warnings(dataclasses.replace(step.outcome, warnings=warnings, notices=()))


def _show_foreseen(steps: "Sequence[Foreseen]", as_json: bool) -> int:
    if as_json:
        echo_json([dataclasses.asdict(step) for step in steps])
        return 0
    for step in steps:
        click.echo(f"{step.stage}: {step.state}, {step.why}{f' → {step.at}' if step.at else ''}")
    return 0
