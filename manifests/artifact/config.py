"""Configs: every option is declared once and read the same way from a shell, a recipe, Python and plan.json.

A config is a frozen dataclass under `checks_itself`. Its fields are made by `option`, and its `__post_init__` calls
`check_config`. A field is open if its default is None and its type is not optional: `resolve` settles it before use.
"""

import dataclasses
import difflib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeVar, Union

from ..errors import ConfigError, CorruptArtifact
from ..files.sealed import Json

T = TypeVar("T")
_SPEC = "option"
REQUIRED: Any = dataclasses.MISSING
# "inside root": a folder inside `root`; "weights": a file, a checkpoint or random:SEED.
PathKind = Literal["file", "folder", "inside root", "weights"]
_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything an option declares besides name, type and default."""

    help: str = ""
    metavar: str = ""
    flag: str = ""  # the name on the command line if it differs from the field
    at_least: float | int | None = None
    at_most: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    parse: Callable[[str], Any] | None = None  # text → object; its `str` gives the text back
    path: PathKind | None = None
    is_argument: bool = False  # positional in a command
    open_word: str = ""  # a word that means the same as leaving the option out
    is_list_file: bool = False  # a command takes a file with one entry per line; a recipe also takes the list
    is_repeated: bool = False  # a command takes the option several times, one value each
    without: tuple[str, ...] = ()  # options of a nested config that this command does not offer
    is_settled: bool = False  # not an option: `resolve` sets the value
    changes_bytes: bool = True
    is_kept: bool = False


# Decorates a config: `check_config` checks its values and explains errors, so runtime type checkers must skip it.
checks_itself = typing.no_type_check


def option(default: Any = REQUIRED, help: str = "", *, changes_bytes: bool = True, **more: Any) -> Any:  # noqa: A002
    """A field of a config. `changes_bytes=False` keeps it out of every fingerprint; with `is_kept` plan.json still
    stores it, because a retry needs it."""
    return dataclasses.field(default=default, metadata={_SPEC: Spec(help=help, changes_bytes=changes_bytes, **more)})


def settled(default: Any = None, *, changes_bytes: bool = True, is_kept: bool = False) -> Any:
    """A field that `resolve` sets, not the user, such as the digest of a file that an option names."""
    return option(default, changes_bytes=changes_bytes, is_kept=is_kept, is_settled=True)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, from the config itself or a nested one."""

    name: str
    hint: Any
    default: Any  # or REQUIRED
    spec: Spec = Spec()

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


def spec_of(field: "dataclasses.Field[Any]") -> Spec:
    return typing.cast(Spec, field.metadata.get(_SPEC, Spec()))


def options_of(config: type[Any], layout: str = "") -> dict[str, Option]:
    """Name → option, including nested configs. Of variants: those of `layout`, or all of them as optional."""
    options: dict[str, Option] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if spec.is_settled:
            continue
        if variants := variants_of(hint):
            chosen = [variants[layout]] if layout in variants else list(variants.values())
            for variant in chosen:
                for name, entry in options_of(variant).items():
                    is_open = layout not in variants
                    options.setdefault(name, dataclasses.replace(entry, default=None) if is_open else entry)
        elif nested := nested_config(hint):
            is_optional = type(None) in typing.get_args(hint)
            for name, entry in options_of(nested).items():
                if name not in spec.without:
                    is_open = is_optional and entry.is_required
                    options[name] = dataclasses.replace(entry, default=None) if is_open else entry
        else:
            options[field.name] = Option(field.name, hint, field.default, spec)
    return options


def build_config(config: type[T], values: Mapping[str, Any], layout: str = "") -> T:
    """Builds a config from flat values named as in `options_of`; raises ConfigError."""
    arguments: dict[str, Any] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if variants := variants_of(hint):
            arguments[field.name] = build_config(variants[layout], values)
        elif nested := nested_config(hint):
            given = {name: value for name, value in values.items() if name in options_of(nested)}
            required = [name for name, entry in options_of(nested).items() if entry.is_required]
            if all(given.get(name) for name in required):
                arguments[field.name] = build_config(nested, given)
            else:
                _refuse_alone(given, options_of(nested), required[0])
        elif not spec.is_settled and field.name in values:
            arguments[field.name] = values[field.name]
    return config(**arguments)


def _refuse_alone(given: Mapping[str, Any], options: Mapping[str, Option], needed: str) -> None:
    """Refuses options of a nested config that is left out."""
    for name, value in given.items():
        if name != needed and value not in (None, options[name].default):
            raise ConfigError(f"{flag(name)} needs {flag(needed)}; give both, or leave {flag(name)} out")


def flag(name: str) -> str:
    """The command-line spelling of an option, which messages use."""
    return f"--{name.replace('_', '-')}"


def variants_of(hint: Any) -> dict[str, type[Any]]:
    """Layout → config, for a union of configs that each name a layout."""
    members = typing.get_args(hint) if _is_union(hint) else ()
    configs = [member for member in members if dataclasses.is_dataclass(member) and hasattr(member, "layout")]
    return {config.layout: typing.cast(type[Any], config) for config in configs}


def layouts_of(config: type[Any]) -> dict[str, type[Any]]:
    """Layout → config of the first field that has variants; {} if none has."""
    return next(filter(None, (variants_of(hint) for _, hint in _fields_of(config))), {})


def nested_config(hint: Any) -> type[Any] | None:
    """The config that a field holds, also if it is optional."""
    members = _members(hint) if _is_union(hint) else [hint]
    is_nested = len(members) == 1 and dataclasses.is_dataclass(members[0]) and not hasattr(members[0], "layout")
    return typing.cast(type[Any], members[0]) if is_nested and _has_options(members[0]) else None


def _has_options(config: Any) -> bool:
    return any(_SPEC in field.metadata for field in dataclasses.fields(config))


def check_config(config: Any) -> None:
    """Parses text forms; raises ConfigError for a wrong type or a value out of range."""
    for field, hint in _fields_of(type(config)):
        spec, value = spec_of(field), getattr(config, field.name)
        if value == spec.open_word and field.default is None and (value or spec.parse):  # left open
            object.__setattr__(config, field.name, None)
            continue
        if value is None and field.default is None:
            continue
        name = (spec.flag or field.name).replace("_", "-")
        if spec.parse is not None:
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                object.__setattr__(config, field.name, spec.parse(str(value)))
            continue
        try:
            value = fit_value(value, hint)
        except Unfit as unfit:
            raise ConfigError(_misfit(name, value, hint, unfit)) from None
        object.__setattr__(config, field.name, value)
        _refuse_out_of_range(name, value, spec)


def _refuse_out_of_range(name: str, value: Any, spec: Spec) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    bounds = ((spec.at_least, ge), (spec.at_most, le), (spec.above, gt), (spec.below, lt))
    if not all(bound is None or compare(value, bound) for bound, compare in bounds):
        raise ConfigError(f"{name} is {value:g} and must be {range_text(spec)}")


def range_text(spec: Spec) -> str:
    low = f"at least {spec.at_least:g}" if spec.at_least is not None else ""
    low = f"above {spec.above:g}" if spec.above is not None else low
    high = f"at most {spec.at_most:g}" if spec.at_most is not None else ""
    high = f"below {spec.below:g}" if spec.below is not None else high
    if spec.at_least is not None and spec.at_most is not None:
        return f"from {spec.at_least:g} to {spec.at_most:g}"
    return " and ".join(part for part in (low, high) if part)


def config_json(config: Any) -> dict[str, Json]:
    """A config as JSON, without the options that change no bytes; nested configs stay nested."""
    values: dict[str, Json] = {}
    if hasattr(config, "layout"):  # which member of a union this is
        values["layout"] = config.layout
    for field in dataclasses.fields(config):
        if spec_of(field).changes_bytes:
            values[field.name] = _json(getattr(config, field.name), spec_of(field))
    return values


def settings_json(config: Any) -> dict[str, Json]:
    """Options that change no bytes but that a retry needs, such as the path of the weights."""
    fields = [field for field in dataclasses.fields(config) if spec_of(field).is_kept]
    return {field.name: _json(getattr(config, field.name), spec_of(field)) for field in fields}


def config_from(cls: type[T], values: Mapping[str, Json]) -> T:
    """Reads back what `config_json` wrote; options that change no bytes take their defaults."""
    fields = {field.name: (field, hint) for field, hint in _fields_of(cls)}
    unknown = sorted(set(values) - set(fields) - {"layout"})
    if unknown:
        raise CorruptArtifact(
            f"the stored configuration has unknown fields {unknown}; use the newer maskmill that wrote it"
        )
    return cls(**{name: _stored(fields[name][1], value) for name, value in values.items() if name in fields})


def _stored(hint: Any, value: Json) -> Any:
    """The value of stored JSON: a config, a tuple, or the JSON value itself."""
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else Any
        return tuple(_stored(inner, item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if variants := variants_of(hint):
        return config_from(variants[value["layout"]], value)
    members = [member for member in (*typing.get_args(hint), hint) if dataclasses.is_dataclass(member)]
    return config_from(typing.cast(type[Any], members[0]), value) if members else value


def _json(value: Any, spec: Spec) -> Json:
    if spec.parse is not None:
        return "" if value is None else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_json(value)
    if isinstance(value, tuple | list):
        return [_json(item, Spec()) for item in value]
    return value


class Unfit(Exception):
    """A value does not fit its option; the text says what is expected."""


def read_table(table: Mapping[str, Any], options: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """The converted values of a recipe's table, and its mistakes, one sentence each."""
    values: dict[str, Any] = {}
    mistakes = [f"unknown key {name}; {nearest(name, options)}" for name in table if name not in options]
    for name, entry in options.items():
        if name in table:
            hint = _table_hint(entry)
            try:
                values[name] = fit_value(table[name], hint)
            except Unfit as unfit:
                mistakes.append(_misfit(name, table[name], hint, unfit))
        elif entry.is_required:
            mistakes.append(f"{name} is missing and must be {expected(_table_hint(entry))}")
    return values, mistakes


def _table_hint(entry: Option) -> Any:
    """The type of an option in a recipe: a text form may be a number, a list may be the path of a list file."""
    if entry.spec.parse is not None:
        return str | int | float
    if entry.spec.open_word:
        literal: Any = Literal  # type checkers accept no Literal made from values
        return literal[(entry.spec.open_word, *typing.get_args(entry.hint))]
    return str | entry.hint if entry.spec.is_list_file else entry.hint


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name: the closest known name, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"it can be {', '.join(names)}"


def fit_value(value: Any, hint: Any) -> Any:
    """Converts a value to its type (list → tuple, int → float); raises Unfit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(hint):
        return None if value is None and types.NoneType in arguments else _fit_to_any(value, _members(hint), hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        raise Unfit(f"a {getattr(hint, '__name__', hint)}")
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple and Ellipsis not in arguments:
        values = value if isinstance(value, list | tuple) else [value] * len(arguments)  # one value fills all places
        if len(values) == len(arguments):
            return tuple(fit_value(item, inner) for item, inner in zip(values, arguments, strict=True))
    elif origin in (tuple, Sequence):
        if isinstance(value, list | tuple):
            return tuple(_fit_item(item, arguments[0], hint) for item in value)
    elif hint is Any or origin is Callable:
        return value
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is (origin or hint):  # not isinstance: True is an int
        return value
    raise Unfit(expected(hint))


def _fit_to_any(value: Any, members: Sequence[Any], hint: Any) -> Any:
    for member in members:
        try:
            return fit_value(value, member)
        except Unfit:
            continue
    raise Unfit(expected(hint))


def _fit_item(value: Any, inner: Any, hint: Any) -> Any:
    """Fits one item; the error describes the whole list."""
    try:
        return fit_value(value, inner)
    except Unfit:
        raise Unfit(expected(hint)) from None


def expected(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(hint):
        members = _members(hint)
        return " or ".join(expected(member) for member in members if not (member is int and float in members))
    if origin is Literal:
        return " or ".join(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"{expected(arguments[0])} or a list of {len(arguments)}"
    if origin in (tuple, Sequence):
        return f"a list, each of it {expected(arguments[0])}"
    return _KINDS.get(origin or hint, f"a {getattr(hint, '__name__', hint)}")


def _members(hint: Any) -> list[Any]:
    """The members of a union except None: in TOML, None is a missing key."""
    return [member for member in typing.get_args(hint) if member is not types.NoneType]


def _misfit(name: str, value: Any, hint: Any, unfit: Unfit) -> str:
    """The message for a value that does not fit, with the closest word that the option takes."""
    members = _members(hint) if _is_union(hint) else [hint]
    words = [word for member in members if typing.get_origin(member) is Literal for word in typing.get_args(member)]
    near = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{name} is {_shown(value)} and must be {unfit}{meant}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    kind = "" if isinstance(value, bool) else f" ({_KINDS.get(type(value), 'a date or time')})"
    return (text if len(text) <= 60 else f"{text[:57]}…") + kind


def is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple and Ellipsis in typing.get_args(hint)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _fields_of(config: type[Any]) -> list[tuple["dataclasses.Field[Any]", Any]]:
    hints = inspect.get_annotations(config, eval_str=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(config)]
