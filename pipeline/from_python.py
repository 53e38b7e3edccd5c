"""The Python interface: run one command by its name or its config, or a whole recipe."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..manifests.artifact.artifact import open_artifact
from ..manifests.artifact.config import build_config, config_from, read_table
from ..manifests.artifact.values import nearest
from ..manifests.errors import ConfigError
from ..manifests.files.place import place, split
from ..stages.command import Command
from ..stages.registry import COMMANDS, find_stage
from .recipes.chain import Made, run_recipe as run_each
from .recipes.recipe import read_recipe
from .recipes.spelling import spell_errors
from .recipes.steps import LAYOUT, table_options
from .running.making import make, place_order
from .running.options import RunOptions
from .running.run import Outcome

Path = str | os.PathLike[str]


def run(
    step: Any, inputs: Mapping[str, Path], out: Path, *, options: RunOptions | None = None, **settings: Any
) -> Outcome:
    """Makes an artifact, or resumes it; does nothing if it is done: `run("mask", {"tokens": "tokens"}, "maps",
    supports=8)`. Settings are the keys of a command's table in a recipe. Instead of a name and settings, pass a config
    from `config_of`. Name only inputs that the others do not lead to. Raises MaskmillError where a command would print
    an error."""
    if isinstance(step, str) and step not in COMMANDS:
        raise ConfigError(f"unknown command {step!r}; {nearest(step, COMMANDS)}")
    given = {role: place(path).uri for role, path in inputs.items()}
    command = COMMANDS[step].command if isinstance(step, str) else _command_of(step, settings)
    with spell_errors(command, "python"):
        config = _config_of_settings(command, settings) if isinstance(step, str) else step
        outcome = make(place_order(command, config, given), place(out).uri, options or RunOptions())
    assert outcome is not None, "torchrun starts commands, not programs"
    return outcome


def config_of(path: Path) -> Any:
    """The config that an artifact was made with: a frozen dataclass, for `dataclasses.replace` and `run`."""
    plan = open_artifact(place(path).uri).plan
    return config_from(find_stage(plan.stage).config, {**plan.config, **plan.settings})


def run_recipe(
    recipe: Path, work: Path = "", *, settings: Sequence[str] = (), options: RunOptions | None = None
) -> list[Made]:
    """Runs every step and skips what is done; a setting reads "refine.threshold=0.5"."""
    uri = os.fspath(recipe)
    at = place(work) if work else split(uri)[0].join("maskmill-work")
    return list(run_each(read_recipe(uri, settings), at, options or RunOptions()))


def _config_of_settings(command: Command, settings: Mapping[str, Any]) -> Any:
    options = table_options(command, settings)
    values, mistakes = read_table(settings, options)
    if mistakes:
        raise ConfigError("; ".join(f"{command.name}: {mistake}" for mistake in mistakes))
    paths = [name for name, one in options.items() if one.spec.path in ("file", "folder") and values.get(name)]
    values |= {name: place(values[name]).uri for name in paths}
    layout = values.pop(LAYOUT, "")
    return build_config(command.config, values, layout)


def _command_of(config: Any, settings: Mapping[str, Any]) -> Command:
    name = type(config).__name__
    entry = next((entry for entry in COMMANDS.values() if entry.config == name), None)
    if entry is None or not isinstance(config, entry.command.config):
        raise ConfigError(f"run takes the name of a command or its config: found a {name}")
    if settings:
        raise ConfigError(
            f"a {name} takes no further settings: found {', '.join(settings)}; change it with dataclasses.replace"
        )
    return entry.command
