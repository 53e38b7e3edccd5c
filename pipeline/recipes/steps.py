"""The steps of a recipe: the commands of the registry in their order, and which step reads the artifacts of which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...manifests.artifact.artifact import open_artifact
from ...manifests.artifact.config import REQUIRED, Option, build_config, layouts_of, options_of
from ...manifests.published.schema import read_id_list
from ...stages.command import Command
from ...stages.registry import recipe_commands
from ...stages.stage import Inputs

Table = Mapping[str, Any]
EXTRACT, MASK, VIEWS = "extract", "mask", "views"
LAYOUT = "layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeStep:
    name: str  # of its table; further views are numbered extractions
    command: Command
    reads: Mapping[str, Sequence[str]]  # role → steps that may make its artifact; the first one in the recipe does

    @property
    def role_keys(self) -> dict[str, str]:
        """Key → role, for artifacts that a recipe may name."""
        return {role.key: name for name, role in self.command.roles.items() if role.key}

    def options(self, table: Table) -> dict[str, Option]:
        """The keys that its table may have, which may depend on its layout."""
        options = table_options(self.command, table)
        if self.name == MASK:
            options[VIEWS] = Option(VIEWS, Sequence[dict[str, Any]], ())
        return {**options, **{key: Option(key, str, "") for key in self.role_keys}}

    def config(self, values: Table) -> Any:
        """The config of a table's values; raises ConfigError if it cannot work."""
        layout = str(values.get(LAYOUT, ""))
        known = options_of(self.command.config, layout)
        given = {
            name: read_id_list(value) if known[name].spec.is_list_file and isinstance(value, str) else value
            for name, value in values.items()
            if name in known
        }
        return build_config(self.command.config, given, layout)

    def artifacts_named(self, values: Table) -> Inputs:
        """Role → the artifact that the recipe names for it."""
        roles = self.command.roles
        return {
            role: open_artifact(values[key], roles[role].kind) for key, role in self.role_keys.items() if key in values
        }


def table_options(command: Command, table: Table) -> dict[str, Option]:
    """The options of a command, for the variant that its table names."""
    layouts = layouts_of(command.config)
    options = options_of(command.config, str(table.get(LAYOUT, "")))
    literal: Any = Literal  # type checkers do not allow a Literal of variables
    return {LAYOUT: Option(LAYOUT, literal[tuple(layouts)], REQUIRED), **options} if layouts else options


def recipe_steps(views: int = 0) -> dict[str, RecipeStep]:
    """Name → step, with one more extraction for each further view in [mask]."""
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
    """Role → earlier steps that make it, the latest first; further views are read only by number."""
    reads: dict[str, Sequence[str]] = {}
    for name, role in command.roles.items():
        kinds = role.kind.split("|")
        earlier = [step.name for step in before.values() if step.command.makes in kinds and "-view" not in step.name]
        makers = list(reversed(earlier)) if role.made_by is None else list(role.made_by)
        if makers:
            reads[name] = makers
    return reads


def view_options(extract: Table) -> dict[str, Option]:
    """The keys in which a further view may differ from [extract]."""
    options = recipe_steps()[EXTRACT].options(extract)
    return {name: replace(options[name], default=None) for name in ("image_size", "fit", "flip")}
