"""The steps of a recipe: the commands of the registry in their order, and which reads what of which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...manifests.artifact.artifact import open_artifact
from ...manifests.artifact.config import REQUIRED, Option, build_config, layouts_of, options_of
from ...manifests.published.schema import read_id_list
from ...stages.command import Command
from ...stages.registry import recipe_commands
from ...stages.stage import Inputs

Said = Mapping[str, Any]  # the values of a table
EXTRACT, MASK, VIEWS = "extract", "mask", "views"
LAYOUT = "layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeStep:
    name: str  # of its table; that of a further view is the extraction's with a number
    command: Command
    reads: Mapping[str, Sequence[str]]  # role → the steps whose artifact it may be, the first that there is

    @property
    def role_keys(self) -> dict[str, str]:
        """Key → role, of artifacts that a recipe may name."""
        return {role.key: name for name, role in self.command.roles.items() if role.key}

    def options(self, said: Said) -> dict[str, Option]:
        """What its table may say, by what it says."""
        options = table_options(self.command, said)
        if self.name == MASK:
            options[VIEWS] = Option(VIEWS, Sequence[dict[str, Any]], ())
        return {**options, **{key: Option(key, str, "") for key in self.role_keys}}

    def config(self, values: Said) -> Any:
        """The config of a table's values, with what they leave open; raises ConfigError for what cannot work."""
        known = options_of(self.command.config, str(values.get(LAYOUT, "")))
        told = {name: _read_list(known[name], value) for name, value in values.items() if name in known}
        return build_config(self.command.config, told, str(values.get(LAYOUT, "")))

    def artifacts_named(self, values: Said) -> Inputs:
        """Role → the artifact that the recipe names for it."""
        roles = self.command.roles
        return {
            role: open_artifact(values[key], roles[role].kind) for key, role in self.role_keys.items() if key in values
        }


def table_options(command: Command, said: Said) -> dict[str, Option]:
    """The options of a command, by the variant that its table names."""
    layouts = layouts_of(command.config)
    options = options_of(command.config, str(said.get(LAYOUT, "")))
    return {LAYOUT: Option(LAYOUT, _one_of(layouts), REQUIRED), **options} if layouts else options


def _one_of(names: Mapping[str, Any]) -> Any:
    literal: Any = Literal  # which type checkers let nobody make from values
    return literal[tuple(names)]


def _read_list(option: Option, value: Any) -> Any:
    return read_id_list(value) if option.spec.is_list_file and isinstance(value, str) else value


def recipe_steps(views: int = 0) -> dict[str, RecipeStep]:
    """Name → step; with an extraction more for each further view that [mask] names."""
    steps: dict[str, RecipeStep] = {}
    for command in recipe_commands():
        steps[command.name] = RecipeStep(name=command.name, command=command, reads=_readers(command, steps))
        if command.name == EXTRACT:
            for number in range(2, views + 2):
                name = f"{EXTRACT}-view{number}"
                steps[name] = replace(steps[EXTRACT], name=name)
        elif command.name == MASK:
            further = {f"view{number}": [f"{EXTRACT}-view{number}"] for number in range(2, views + 2)}
            steps[MASK] = replace(steps[MASK], reads={**steps[MASK].reads, **further})
    return steps


def _readers(command: Command, before: Mapping[str, RecipeStep]) -> dict[str, Sequence[str]]:
    """Of each role the steps before that make it, the latest first; a further view is read by number alone."""
    reads: dict[str, Sequence[str]] = {}
    for name, role in command.roles.items():
        kinds = role.kind.split("|")
        made = [each.name for each in before.values() if each.command.makes in kinds and "-view" not in each.name]
        makers = list(reversed(made)) if role.made_by is None else list(role.made_by)
        if makers:
            reads[name] = makers
    return reads


def view_options(extract: Said) -> dict[str, Option]:
    """What a further view may say: in which it is another than that of [extract]."""
    options = recipe_steps()[EXTRACT].options(extract)
    return {name: replace(options[name], default=None) for name in ("image_size", "fit", "flip")}
