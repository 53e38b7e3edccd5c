"""Recipes: what every stage is to be told, in one TOML file, checked as a whole before anything runs.

A recipe has a title, perhaps notes, and a table for each stage that is to run. Relative paths are relative to its file;
those of a setting, which is typed in a shell, to the directory that it is typed in.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...manifests.artifact.config import Option, PathKind, options_of, read_table
from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError, InputError, MaskmillError
from ...manifests.files.place import Place, place, split
from ...manifests.pictures.sources import open_user_file
from ..running.options import RunOptions
from . import SCRIPTS, SHIPPED, recipe_file
from .spelling import Spelling, spell
from .steps import EXTRACT, MASK, VIEWS, RecipeStep, recipe_steps, view_options

Tables = dict[str, dict[str, Any]]
RUN = "run"
# What a recipe may say of the run itself. Where the work is done is left out: a recipe is handed on, and a scheduler or
# a cluster file that somebody else has named would run what they like.
_OF_RUN = ("workers", "max_bad", "trust")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What stands at the top of a recipe."""

    title: str
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What stands in the place of what a recipe says, such as `refine.threshold=0.5`."""

    table: str
    key: str
    value: Any

    @property
    def name(self) -> str:
        return f"{self.table}.{self.key}"

    def __str__(self) -> str:
        return f"{self.name}={value_text(self.value)}"


@dataclass(frozen=True, slots=True)
class Recipe:
    heading: Heading
    run: Mapping[str, Any]  # what it says of the run
    tables: Mapping[str, Mapping[str, Any]]  # step → its values, each of its option's type, paths absolute
    views: int = 0  # besides that of [extract]

    @property
    def steps(self) -> list[RecipeStep]:
        """In the order in which they run."""
        return [step for name, step in recipe_steps(self.views).items() if name in self.tables]

    def source_of(self, step: RecipeStep, role: str) -> str:
        """The step whose artifact has a role."""
        return next(name for name in step.reads[role] if name in self.tables)


def read_recipe(uri: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, with settings such as `refine.threshold=0.5` in the place of what it says."""
    return parse_recipe(recipe_bytes(uri), uri, split(uri)[0], settings)


def recipe_bytes(uri: str) -> bytes:
    if uri in (*SHIPPED, *SCRIPTS) and not os.path.exists(uri):
        file = recipe_file(uri)
        then = f", and run that with `sh {file}`" if uri in SCRIPTS else ""
        raise InputError(f"{uri} is a recipe that ships; write it down with `maskmill recipe write {uri} {file}`{then}")
    with open_user_file(uri, "recipe") as stream:
        return stream.read()


def parse_recipe(data: bytes, where: str, base: Place, settings: Sequence[str | Setting] = ()) -> Recipe:
    """Raises ConfigError with everything that is wrong, a line each."""
    said, steps = _parse_toml(data, where), recipe_steps()
    mistakes, typed = _apply(settings, said)
    heading, tables, unknown = _split_tables(said, steps)
    mistakes += unknown
    values, wrong = read_table(heading, options_of(Heading))
    mistakes += wrong
    run = _run_table(tables.pop(RUN, {}), mistakes)
    if not tables and not mistakes:
        mistakes.append(f"there is no stage in it; give it tables such as [index], of {', '.join(steps)}")
    found: Tables = {}
    faults: dict[str, list[str]] = {}
    for name, step in steps.items():
        if name in tables:
            found[name], wrong = _read_step(step, tables[name], base, typed.get(name, set()))
            faults[name] = [*_missing_steps(step, tables), *wrong]
    views = _add_views(found, faults)
    _check(found, faults, recipe_steps(views))
    spelling: Spelling = "set" if where.startswith("--") else "key"
    known = recipe_steps(views)
    mistakes += [
        f"[{name}] {spell(fault, known[name].command, spelling)}" for name, some in faults.items() for fault in some
    ]
    if mistakes:
        raise ConfigError(_mistakes_text(where, mistakes))
    return Recipe(Heading(**values), run, found, views)


def _mistakes_text(where: str, mistakes: Sequence[str]) -> str:
    if len(mistakes) == 1:
        return f"{where}: {mistakes[0]}"
    return "\n  ".join([f"{where} has {len(mistakes)} mistakes:", *mistakes])


def _parse_toml(data: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not TOML: {error}; mend that line") from error


def parse_setting(text: str) -> Setting:
    """A setting whose value is still its text; raises ConfigError where it is none."""
    path, equals, value = text.partition("=")
    table, _, key = path.strip().partition(".")
    if not equals or not key or "." in key:
        raise ConfigError(f"--set {text} is not of the form STAGE.KEY=VALUE, such as refine.threshold=0.5")
    return Setting(table, key, value)


def toml_or_text(text: str) -> Any:
    """As TOML has it; what is no TOML is text, so that a path needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def value_text(value: Any) -> str:
    """Text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _apply(settings: Sequence[str | Setting], said: dict[str, Any]) -> tuple[list[str], dict[str, set[str]]]:
    """Puts settings into what a recipe says; gives what is wrong with them, and which keys they have set."""
    mistakes: list[str] = []
    typed: dict[str, set[str]] = {}
    for each in settings:
        with _collect_mistakes(mistakes):
            setting = _parse_typed_setting(each) if isinstance(each, str) else each
            if not isinstance(said.setdefault(setting.table, {}), dict):
                raise ConfigError(f"--set {setting} names {setting.table}, which is not a table")
            said[setting.table][setting.key] = setting.value
            typed.setdefault(setting.table, set()).add(setting.key)
    return mistakes, typed


def _parse_typed_setting(text: str) -> Setting:
    setting = parse_setting(text)
    return replace(setting, value=toml_or_text(setting.value))


def _split_tables(said: Mapping[str, Any], steps: Mapping[str, RecipeStep]) -> tuple[dict[str, Any], Tables, list[str]]:
    """The heading, the tables that there can be, and what is neither."""
    keys, known = list(options_of(Heading)), [*steps, RUN]
    heading: dict[str, Any] = {}
    tables: Tables = {}
    mistakes: list[str] = []
    for name, value in said.items():
        if name in keys:
            heading[name] = value
        elif name in known and isinstance(value, dict):
            tables[name] = value
        elif name in known:
            mistakes.append(f"{name} must be a table; write [{name}] above its keys")
        elif isinstance(value, dict):
            mistakes.append(f"unknown table [{name}]; {nearest(name, known)}")
        else:
            mistakes.append(f"unknown key {name}; {nearest(name, [*keys, *known])}")
    return heading, tables, mistakes


def _run_table(said: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    options = options_of(RunOptions)
    values, wrong = read_table(said, {name: options[name] for name in _OF_RUN})
    try:
        RunOptions(**values)
    except ConfigError as error:
        wrong.append(str(error).replace("-", "_", 1))
    mistakes += [f"[{RUN}] {each}" for each in wrong]
    return values


def _missing_steps(step: RecipeStep, tables: Tables) -> Iterator[str]:
    given = {step.role_keys[key] for key in tables[step.name] if key in step.role_keys}
    for role, names in step.reads.items():
        if role not in given and not any(name in tables for name in names):
            yield f"reads the {role} that [{names[-1]}] makes, and there is no [{names[-1]}]; add it"


def _read_step(
    step: RecipeStep, said: Mapping[str, Any], base: Place, typed: set[str]
) -> tuple[dict[str, Any], list[str]]:
    options = step.options(said)
    values, mistakes = read_table(said, options)
    kinds: dict[str, PathKind] = {**_paths(options), **dict.fromkeys(step.role_keys, "folder")}
    for name in sorted(kinds, key=lambda name: kinds[name] == "inside root"):  # which is looked for when root is known
        if name in values and _is_path(values[name], kinds[name]):
            try:
                values[name] = _resolve_path(values, name, kinds[name], place(".") if name in typed else base)
            except ConfigError as error:
                mistakes.append(str(error))
        elif name in values and not values[name] and options[name].is_required:
            mistakes.append(f"{name} is empty and must be a path")
    return values, mistakes


def _paths(options: Mapping[str, Option]) -> dict[str, PathKind]:
    return {name: one.spec.path or "file" for name, one in options.items() if one.spec.path or one.spec.is_list_file}


def _is_path(value: Any, kind: PathKind) -> bool:
    return isinstance(value, str) and bool(value) and not (kind == "weights" and value.startswith("random:"))


def _resolve_path(values: Mapping[str, Any], name: str, kind: PathKind, base: Place) -> str:
    """The absolute path or URL; raises ConfigError where nothing is there. Folders in object stores are not looked
    for: there it may take as long as listing them, which the stage does."""
    value: str = values[name]
    if kind == "inside root":
        inside = place(values["root"]).join(value) if values.get("root") else None
        if inside is not None and inside.is_local and not inside.exists():
            raise ConfigError(f"{name} is {inside}, which is not there; check the path")
        return value
    there = _absolute(value, base)
    if there.is_local and not there.exists():
        raise ConfigError(f"{name} is {there}, which is not there; check the path")
    if there.is_local and kind == "file" and not os.path.isfile(there.uri):
        raise ConfigError(f"{name} is {there} and must be a file; name the file in it")
    return there.uri


def _absolute(value: str, base: Place) -> Place:
    if "://" in value or value.startswith(("/", "~")):
        return place(value)
    return Place(os.path.normpath(base.path(value))) if base.is_local else base.join(value)


def _add_views(tables: Tables, faults: dict[str, list[str]]) -> int:
    """Takes the further views out of [mask]: each is a table more, that of [extract] but for what the view says."""
    views = tables.get(MASK, {}).pop(VIEWS, ())
    for number, view in enumerate(views, 2):
        values, wrong = read_table(view, view_options(tables.get(EXTRACT, {})))
        faults[MASK] += [f"{VIEWS}, the view {json.dumps(view, default=str)}: {each}" for each in wrong]
        if EXTRACT in tables and not (wrong or faults[EXTRACT]):
            tables[f"{EXTRACT}-view{number}"] = {**tables[EXTRACT], **values}
            faults[f"{EXTRACT}-view{number}"] = []
    return len(views)


def _check(tables: Tables, faults: dict[str, list[str]], steps: dict[str, RecipeStep]) -> None:
    """Adds what only the stages themselves can tell to be wrong; and the token fields that later steps will read."""
    configs: dict[str, Any] = {}
    wanted: list[str] = []
    for name in (name for name in reversed(steps) if not faults.get(name, True)):
        step = steps[name]
        if step.command.name == EXTRACT:
            _add_fields(tables[name], wanted)
        with _collect_mistakes(faults[name]):
            stage = step.command.stage
            configs[name] = stage.resolve(step.config(tables[name]), {})
            wanted += stage.wants(configs[name])
    for name in configs:
        with _collect_mistakes(faults[name]):
            steps[name].command.stage.refuse(configs, steps[name].artifacts_named(tables[name]))
    for name in faults:
        if name != EXTRACT and name.startswith(EXTRACT):  # what is wrong with [extract] is told once
            faults[name] = [fault for fault in faults[name] if fault not in faults[EXTRACT]]


@contextmanager
def _collect_mistakes(faults: list[str]) -> Iterator[None]:
    """Lists a mistake of the user's instead of raising it."""
    try:
        yield
    except MaskmillError as error:
        if error.exit_code != ConfigError.exit_code:
            raise
        faults.append(str(error))


def _add_fields(extract: dict[str, Any], wanted: Sequence[str]) -> None:
    """Of a field that is named the recipe decides the blocks."""
    said = extract.get("fields", ())
    named = {one.partition(":")[0].strip() for one in said}
    if wanted:
        extract["fields"] = (*said, *(name for name in dict.fromkeys(wanted) if name not in named))
