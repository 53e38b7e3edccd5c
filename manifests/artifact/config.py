"""Configs: every option is declared once, and read the same way from a shell, a recipe, Python and plan.json.

A config is a frozen dataclass under `checks_itself`. Its fields are made by `option`, and its `__post_init__` calls
`check_config`. A field is open if its default is None and its type is not optional: the stage's `resolve` settles it
before it is used.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeVar

from ..errors import ConfigError, CorruptArtifact
from ..files.sealed import Json
from .values import Unfit, fit_value, is_union, kind_text, members_of, misfit, nearest

T = TypeVar("T")
_SPEC = "option"
REQUIRED: Any = dataclasses.MISSING
# What a path leads to: a file, a folder, a folder inside `root`, or weights (a file, a checkpoint or random:SEED).
PathKind = Literal["file", "folder", "inside root", "weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The declaration of an option, besides its name, type and default."""

    help: str = ""
    metavar: str = ""
    flag: str = ""  # the name on the command line if it differs from the field
    at_least: float | int | None = None
    at_most: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    parse: Callable[[str], Any] | None = None  # text → the object whose `str` is that text
    path: PathKind | None = None
    is_argument: bool = False  # a positional argument of the command
    open_word: str = ""  # a value that leaves the option open, like leaving it out
    is_list_file: bool = False  # a command takes a file with one entry per line; a recipe takes the file or the list
    is_repeated: bool = False  # the option may be given several times, with one value each
    without: tuple[str, ...] = ()  # options of a nested config that this command does not offer
    is_settled: bool = False  # not an option: `resolve` finds the value
    changes_bytes: bool = True
    is_kept: bool = False
    # Stored only if it is not its default, or not what artifacts from before the option were made with, so that these
    # keep their name.
    is_new: bool = False
    before: Callable[[Any], Any] | None = None  # config → that value


# Decorates a config: `check_config` checks its values, with readable messages, instead of a runtime type checker.
checks_itself = typing.no_type_check


def option(default: Any = REQUIRED, help: str = "", *, changes_bytes: bool = True, **more: Any) -> Any:  # noqa: A002
    """A field of a config. `changes_bytes=False` keeps it out of every fingerprint; plan.json stores such a value only
    with `is_kept`, for a retry that needs it."""
    return dataclasses.field(default=default, metadata={_SPEC: Spec(help=help, changes_bytes=changes_bytes, **more)})


def field_for_resolve(default: Any = None, **more: Any) -> Any:
    """A field that is not an option: `resolve` settles it, such as the digest of a file that an option names."""
    return option(default, is_settled=True, **more)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command; its field may be in a nested config."""

    name: str
    hint: Any
    default: Any  # REQUIRED if there is none
    spec: Spec = Spec()

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


def spec_of(field: "dataclasses.Field[Any]") -> Spec:
    return typing.cast(Spec, field.metadata.get(_SPEC, Spec()))


def options_of(config: type[Any], layout: str = "") -> dict[str, Option]:
    """Name → option, including those of nested configs; of variants those of `layout`, else all, optional."""
    options: dict[str, Option] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if spec.is_settled:
            continue
        if variants := variants_of(hint):
            is_open = layout not in variants
            for variant in variants.values() if is_open else [variants[layout]]:
                for name, one in options_of(variant).items():
                    options.setdefault(name, dataclasses.replace(one, default=None) if is_open else one)
        elif nested := config_inside(hint):
            is_optional = type(None) in typing.get_args(hint)
            for name, one in options_of(nested).items():
                if name not in spec.without:
                    is_open = is_optional and one.is_required
                    options[name] = dataclasses.replace(one, default=None) if is_open else one
        else:
            options[field.name] = Option(field.name, hint, field.default, spec)
    return options


def build_config(config: type[T], values: Mapping[str, Any], layout: str = "") -> T:
    """The config of flat values, named as in `options_of`; raises ConfigError if it cannot work."""
    arguments: dict[str, Any] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if variants := variants_of(hint):
            arguments[field.name] = build_config(variants[layout], values)
        elif nested := config_inside(hint):
            options = options_of(nested)
            given = {name: value for name, value in values.items() if name in options}
            required = [name for name, one in options.items() if one.is_required]
            if all(given.get(name) for name in required):
                arguments[field.name] = build_config(nested, given)
            else:
                _refuse_alone(given, options, required[0])
        elif not spec.is_settled and field.name in values:
            arguments[field.name] = values[field.name]
    return config(**arguments)


def _refuse_alone(given: Mapping[str, Any], options: Mapping[str, Option], needed: str) -> None:
    for name, value in given.items():
        if name != needed and value not in (None, options[name].default):
            raise ConfigError(f"{flag(name)} needs {flag(needed)}; give both, or leave it out")


def flag(name: str) -> str:
    """An option as commands and messages spell it."""
    return f"--{name.replace('_', '-')}"


def variants_of(hint: Any) -> dict[str, type[Any]]:
    """Layout → config, for a union of configs with a `layout` each."""
    members: Sequence[Any] = typing.get_args(hint) if is_union(hint) else ()
    return {member.layout: member for member in members if hasattr(member, "layout")}


def layouts_of(config: type[Any]) -> dict[str, type[Any]]:
    """Layout → config, if a field of the config has variants."""
    return next(filter(None, (variants_of(hint) for _, hint in _fields_of(config))), {})


def config_inside(hint: Any) -> type[Any] | None:
    """The config that a field holds, or may hold."""
    first, *others = members_of(hint)
    if others or not dataclasses.is_dataclass(first) or hasattr(first, "layout"):
        return None
    has_options = any(_SPEC in field.metadata for field in dataclasses.fields(first))
    return typing.cast(type[Any], first) if has_options else None


def check_config(config: Any) -> None:
    """Parses text into objects; raises ConfigError for a value of another type or out of range.

    Its sentences name the field, as a recipe and Python spell it. A shell's values have been checked by click.
    """
    for field, hint in _fields_of(type(config)):
        spec, value = spec_of(field), getattr(config, field.name)
        if value == spec.open_word and field.default is None and (value or spec.parse):  # explicitly open
            object.__setattr__(config, field.name, None)
            continue
        if value is None and field.default is None:
            continue
        if spec.parse is not None:
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                object.__setattr__(config, field.name, spec.parse(str(value)))
            continue
        try:
            value = fit_value(value, hint)
        except Unfit as unfit:
            raise ConfigError(misfit(field.name, value, hint, unfit)) from None
        object.__setattr__(config, field.name, value)
        _refuse_out_of_range(field.name, value, spec)


def _refuse_out_of_range(name: str, value: Any, spec: Spec) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    limits = ((spec.at_least, ge), (spec.at_most, le), (spec.above, gt), (spec.below, lt))
    if any(limit is not None and not is_within(value, limit) for limit, is_within in limits):
        raise ConfigError(f"{name} is {value:g} and must be {range_text(spec)}")


def range_text(spec: Spec) -> str:
    if spec.at_least is not None and spec.at_most is not None:
        return f"from {spec.at_least:g} to {spec.at_most:g}"
    limits = {"at least": spec.at_least, "above": spec.above, "at most": spec.at_most, "below": spec.below}
    return " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None)


def config_json(config: Any) -> dict[str, Json]:
    """A config as JSON, nested ones under their field, without fields that do not change bytes."""
    layout = {"layout": config.layout} if hasattr(config, "layout") else {}  # identifies a member of a union
    quiet = {field.name for field in dataclasses.fields(config) if _is_as_before(config, field)}
    values = _fields_json(config, lambda spec: spec.changes_bytes)
    return {**layout, **{name: value for name, value in values.items() if name not in quiet}}


def _is_as_before(config: Any, field: "dataclasses.Field[Any]") -> bool:
    spec, value = spec_of(field), getattr(config, field.name)
    return spec.is_new and (value == field.default or (spec.before is not None and value == spec.before(config)))


def settings_json(config: Any) -> dict[str, Json]:
    """The other fields that a later run needs, such as the path of the weights."""
    return _fields_json(config, lambda spec: spec.is_kept)


def _fields_json(config: Any, is_wanted: Callable[[Spec], bool]) -> dict[str, Json]:
    specs = {field.name: spec_of(field) for field in dataclasses.fields(config)}
    return {name: _json(getattr(config, name), spec) for name, spec in specs.items() if is_wanted(spec)}


def config_from(cls: type[T], values: Mapping[str, Json]) -> T:
    """The config that `config_json` wrote. Fields that change no bytes take their defaults."""
    fields = {field.name: (field, hint) for field, hint in _fields_of(cls)}
    unknown = sorted(set(values) - set(fields) - {"layout"})
    if unknown:
        raise CorruptArtifact(
            f"the stored configuration has unknown fields {unknown}; it was written by a newer maskmill"
        )
    return cls(**{name: _from_stored(fields[name][1], value) for name, value in values.items() if name in fields})


def _from_stored(hint: Any, value: Json) -> Any:
    """A stored value as a nested config, a tuple, or itself."""
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else Any
        return tuple(_from_stored(inner, item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if variants := variants_of(hint):
        return config_from(variants[value["layout"]], value)
    configs = [member for member in (*typing.get_args(hint), hint) if dataclasses.is_dataclass(member)]
    return config_from(typing.cast(type[Any], configs[0]), value) if configs else value


def _json(value: Any, spec: Spec) -> Json:
    if spec.parse is not None:
        return "" if value is None else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_json(value)
    if isinstance(value, tuple | list):
        return [_json(item, Spec()) for item in value]
    return value


def read_table(table: Mapping[str, Any], options: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """The values of a recipe's table, converted to their options' types, and the mistakes, one sentence each."""
    values: dict[str, Any] = {}
    mistakes = [f"unknown key {name}; {nearest(name, options)}" for name in table if name not in options]
    for name, one in options.items():
        hint = _table_hint(one)
        if name in table:
            try:
                values[name] = fit_value(table[name], hint)
            except Unfit as unfit:
                mistakes.append(misfit(name, table[name], hint, unfit))
        elif one.is_required:
            mistakes.append(f"{name} is missing and must be {kind_text(hint)}")
    return values, mistakes


def _table_hint(one: Option) -> Any:
    """In a recipe, parsed text may also be a number, and a list may also be the path of a file with its entries."""
    if one.spec.parse is not None:
        return str | int | float
    if one.spec.open_word:
        literal: Any = Literal  # type checkers do not allow a Literal of variables
        return literal[(one.spec.open_word, *typing.get_args(one.hint))]
    return str | one.hint if one.spec.is_list_file else one.hint


def _fields_of(config: type[Any]) -> list[tuple["dataclasses.Field[Any]", Any]]:
    hints = inspect.get_annotations(config, eval_str=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(config)]
