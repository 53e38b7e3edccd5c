"""Recipes: the options of every stage in one TOML file, checked as a whole before anything runs.

A recipe has a title, optional notes, and a table for each stage that runs. Its paths are relative to its file; paths in
a setting, which is typed in a shell, are relative to the current directory.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...manifests.artifact.config import PathKind, options_of, read_table
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
# The options of a run that a recipe may set. Recipes are shared, so they cannot name a scheduler or a cluster file,
# which could run any program.
_RUN_OPTIONS = ("workers", "max_bad", "trust")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """The top of a recipe."""

    title: str
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """An override of a recipe, such as `refine.threshold=0.5`."""

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
    run: Mapping[str, Any]  # options of the run
    tables: Mapping[str, Mapping[str, Any]]  # step → its values, converted to their options' types, paths absolute
    views: int = 0  # in addition to that of [extract]

    @property
    def steps(self) -> list[RecipeStep]:
        """In the order in which they run."""
        return [step for name, step in recipe_steps(self.views).items() if name in self.tables]

    def source_of(self, step: RecipeStep, role: str) -> str:
        """The step that makes the artifact of a role."""
        return next(name for name in step.reads[role] if name in self.tables)

    def roles_made(self, step: RecipeStep) -> list[str]:
        """The roles of a step whose artifacts other steps make: an optional one may have no maker."""
        return [role for role, names in step.reads.items() if any(name in self.tables for name in names)]


def read_recipe(uri: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, overridden by settings such as `refine.threshold=0.5`."""
    return parse_recipe(recipe_bytes(uri), uri, split(uri)[0], settings)


def recipe_bytes(uri: str) -> bytes:
    if uri in (*SHIPPED, *SCRIPTS) and not os.path.exists(uri):
        file = recipe_file(uri)
        then = f", and run that with `sh {file}`" if uri in SCRIPTS else ""
        raise InputError(
            f"{uri} is not a file but a shipped recipe; write it with `maskmill recipe write {uri} {file}`{then}"
        )
    with open_user_file(uri, "recipe") as stream:
        return stream.read()


def parse_recipe(data: bytes, where: str, base: Place, settings: Sequence[str | Setting] = ()) -> Recipe:
    """Raises ConfigError with all mistakes, one per line."""
    toml, steps = _parse_toml(data, where), recipe_steps()
    mistakes, typed = _apply(settings, toml)
    heading, tables, unknown = _split_tables(toml, steps)
    mistakes += unknown
    values, wrong = read_table(heading, options_of(Heading))
    mistakes += wrong
    run = _run_table(tables.pop(RUN, {}), mistakes)
    if not tables and not mistakes:
        mistakes.append(f"the recipe has no stage; add tables such as [index], one of {', '.join(steps)}")
    checked: Tables = {}
    faults: dict[str, list[str]] = {}
    for name, step in steps.items():
        if name in tables:
            checked[name], wrong = _read_step(step, tables[name], base, typed.get(name, set()))
            faults[name] = [*_missing_steps(step, tables), *wrong]
    views = _add_views(checked, faults)
    known = recipe_steps(views)
    _check(checked, faults, known)
    spelling: Spelling = "set" if where.startswith("--") else "key"
    for name, wrong in faults.items():
        mistakes += [f"[{name}] {spell(fault, known[name].command, spelling)}" for fault in wrong]
    if len(mistakes) == 1:
        raise ConfigError(f"{where}: {mistakes[0]}")
    if mistakes:
        raise ConfigError("\n  ".join([f"{where} has {len(mistakes)} mistakes:", *mistakes]))
    return Recipe(Heading(**values), run, checked, views)


def _parse_toml(data: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not TOML: {error}; correct that line") from error


def parse_setting(text: str) -> Setting:
    """A setting whose value is still text."""
    path, equals, value = text.partition("=")
    table, _, key = path.strip().partition(".")
    if not equals or not key or "." in key:
        raise ConfigError(f"--set {text} is not of the form STAGE.KEY=VALUE, such as refine.threshold=0.5")
    return Setting(table, key, value)


def toml_or_text(text: str) -> Any:
    """The TOML value, or the text if it is not TOML, so that a path needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def value_text(value: Any) -> str:
    """Text as it is, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _apply(settings: Sequence[str | Setting], toml: dict[str, Any]) -> tuple[list[str], dict[str, set[str]]]:
    """Puts settings into a recipe; returns their mistakes, and the keys that they set in each table."""
    mistakes: list[str] = []
    typed: dict[str, set[str]] = {}
    for setting in settings:
        with _collect_mistakes(mistakes):
            if isinstance(setting, str):
                parsed = parse_setting(setting)
                setting = replace(parsed, value=toml_or_text(parsed.value))
            if not isinstance(toml.setdefault(setting.table, {}), dict):
                raise ConfigError(f"--set {setting} names {setting.table}, which is not a table")
            toml[setting.table][setting.key] = setting.value
            typed.setdefault(setting.table, set()).add(setting.key)
    return mistakes, typed


def _split_tables(toml: Mapping[str, Any], steps: Mapping[str, RecipeStep]) -> tuple[dict[str, Any], Tables, list[str]]:
    """The heading, the known tables, and the mistakes."""
    keys, known = list(options_of(Heading)), [*steps, RUN]
    heading: dict[str, Any] = {}
    tables: Tables = {}
    mistakes: list[str] = []
    for name, value in toml.items():
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


def _run_table(table: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    options = options_of(RunOptions)
    values, wrong = read_table(table, {name: options[name] for name in _RUN_OPTIONS})
    try:
        RunOptions(**values)
    except ConfigError as error:
        wrong.append(str(error))
    mistakes += [f"[{RUN}] {mistake}" for mistake in wrong]
    return values


def _missing_steps(step: RecipeStep, tables: Tables) -> Iterator[str]:
    given = {step.role_keys[key] for key in tables[step.name] if key in step.role_keys}
    for role, names in step.reads.items():
        spec = step.command.role(role)
        can_lack = role in given or (spec.is_optional and spec.key)
        if not can_lack and not any(name in tables for name in names):
            yield f"reads the {role} that [{names[-1]}] makes, and the recipe has no [{names[-1]}]; add it"


def _read_step(
    step: RecipeStep, table: Mapping[str, Any], base: Place, typed: set[str]
) -> tuple[dict[str, Any], list[str]]:
    options = step.options(table)
    values, mistakes = read_table(table, options)
    files = [one for one in options.values() if one.spec.path or one.spec.is_list_file]
    kinds: dict[str, PathKind] = {one.name: one.spec.path or "file" for one in files}
    kinds |= dict.fromkeys(step.role_keys, "folder")
    for name in sorted(kinds, key=lambda name: kinds[name] == "inside root"):  # root comes first
        if name in values and _is_path(values[name], kinds[name]):
            try:
                values[name] = _resolve_path(values, name, kinds[name], place(".") if name in typed else base)
            except ConfigError as error:
                mistakes.append(str(error))
        elif name in values and not values[name] and options[name].is_required:
            mistakes.append(f"{name} is empty and must be a path")
    return values, mistakes


def _is_path(value: Any, kind: PathKind) -> bool:
    return isinstance(value, str) and bool(value) and not (kind == "weights" and value.startswith("random:"))


def _resolve_path(values: Mapping[str, Any], name: str, kind: PathKind, base: Place) -> str:
    """The absolute path or URL; raises ConfigError if nothing is there. Folders in object stores are not checked: that
    may take as long as listing them, which the stage does."""
    value: str = values[name]
    if kind == "inside root":
        inside = place(values["root"]).join(value) if values.get("root") else None
        if inside is not None and inside.is_local and not inside.exists():
            raise ConfigError(f"{name} is {inside}, which is not there; check the path")
        return value
    path = _absolute(value, base)
    if path.is_local and not path.exists():
        raise ConfigError(f"{name} is {path}, which is not there; check the path")
    if path.is_local and kind == "file" and not os.path.isfile(path.uri):
        raise ConfigError(f"{name} is {path} and must be a file; name the file in it")
    return path.uri


def _absolute(value: str, base: Place) -> Place:
    if "://" in value or value.startswith(("/", "~")):
        return place(value)
    return Place(os.path.normpath(base.path(value))) if base.is_local else base.join(value)


def _add_views(tables: Tables, faults: dict[str, list[str]]) -> int:
    """Moves the further views out of [mask] into tables of their own: [extract], with the values of the view."""
    views = tables.get(MASK, {}).pop(VIEWS, ())
    for number, view in enumerate(views, 2):
        values, wrong = read_table(view, view_options(tables.get(EXTRACT, {})))
        faults[MASK] += [f"{VIEWS}, the view {json.dumps(view, default=str)}: {mistake}" for mistake in wrong]
        if EXTRACT in tables and not (wrong or faults[EXTRACT]):
            tables[f"{EXTRACT}-view{number}"] = {**tables[EXTRACT], **values}
            faults[f"{EXTRACT}-view{number}"] = []
    return len(views)


def _check(tables: Tables, faults: dict[str, list[str]], steps: dict[str, RecipeStep]) -> None:
    """Adds the mistakes that only the stages can find, and the token fields that later steps read."""
    configs: dict[str, Any] = {}
    wanted: list[str] = []
    for name in (name for name in reversed(steps) if not faults.get(name, True)):
        step = steps[name]
        if step.command.name == EXTRACT:
            _add_fields(tables[name], wanted)
        with _collect_mistakes(faults[name]):
            stage = step.command.stage
            configs[name] = stage.resolve(step.config(tables[name]), {})
            wanted += stage.wants(configs[name], tables.get(EXTRACT, {}))
    for name in configs:
        with _collect_mistakes(faults[name]):
            steps[name].command.stage.refuse(configs, steps[name].artifacts_named(tables[name]))
    for name in faults:
        if name != EXTRACT and name.startswith(EXTRACT):  # mistakes of [extract] are listed once
            faults[name] = [fault for fault in faults[name] if fault not in faults[EXTRACT]]


@contextmanager
def _collect_mistakes(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except MaskmillError as error:
        if error.exit_code != ConfigError.exit_code:
            raise
        faults.append(str(error))


def _add_fields(extract: dict[str, Any], wanted: Sequence[str]) -> None:
    """Adds wanted fields, each with all blocks that steps want; a field that the recipe names keeps its blocks."""
    fields = extract.get("fields", ())
    named = {field.partition(":")[0].strip() for field in fields}
    blocks: dict[str, list[str]] = {}
    for name, _, block in (field.partition(":") for field in dict.fromkeys(wanted)):
        if name not in named:
            blocks.setdefault(name, []).append(block)
    if wanted:
        extract["fields"] = (*fields, *(_join_blocks(name, several) for name, several in blocks.items()))


def _join_blocks(field: str, blocks: Sequence[str]) -> str:
    return field if blocks == [""] else f"{field}:{'+'.join(block or 'last' for block in blocks)}"
