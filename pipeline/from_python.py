"""What a program of a user's calls: one step of a recipe, or a whole one, in the words of a recipe."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..manifests.artifact import open_artifact, source_of
from ..manifests.errors import ConfigError
from ..manifests.place import place, split
from ..stages.stage import WholeStage, kind_of
from .job import RunOptions
from .recipe import read_recipe
from .recipes.chain import Made, run_recipe as run_each
from .recipes.schema import nearest, read_table
from .recipes.steps import STEPS
from .run import Outcome, run as run_units
from .whole import run_whole

Path = str | os.PathLike[str]


def run(
    step: str, inputs: Mapping[str, Path], out: Path, *, options: RunOptions | None = None, **settings: Any
) -> Outcome:
    """Makes an artifact, or goes on with it, or finds that it is done: `run("mask", {"tokens": "tokens"}, "maps",
    supports=8)`. Settings are the keys of the step's table in a recipe; of inputs only what the others do not lead to
    is to be named. Raises MaskmillError where a command would end with its sentence."""
    if step not in STEPS:
        raise ConfigError(f"there is no step {step!r}; {nearest(step, STEPS)}")
    record = STEPS[step]
    values, mistakes = read_table(settings, record.options(settings))
    if mistakes:
        raise ConfigError("; ".join(f"{step}: {mistake}" for mistake in mistakes))
    stage = record.stage
    given = {role: place(path).uri for role, path in inputs.items()}
    opened = {role: open_artifact(uri, kind_of(stage, role)) for role, uri in given.items()}
    for role in record.reads:
        if role not in given and opened and role in ("images", "maps", "tokens"):
            given[role] = source_of(next(iter(opened.values())), role)
            opened[role] = open_artifact(given[role], kind_of(stage, role))
    config = record.config(values, opened)
    if isinstance(stage, WholeStage):
        return run_whole(stage, config, given, place(out).uri)
    return run_units(stage, config, given, place(out).uri, options)


def run_recipe(
    recipe: Path, work: Path = "", *, settings: Sequence[str] = (), options: RunOptions | None = None
) -> list[Made]:
    """Runs every step, each skipping what is done; `settings` are such as "refine.threshold=0.5"."""
    uri = os.fspath(recipe)
    at = place(work) if work else split(uri)[0].joined("maskmill-work")
    return list(run_each(read_recipe(uri, settings), at, options or RunOptions()))
