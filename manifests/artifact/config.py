"""Configs: every option is declared once, and read the same way from a shell, a recipe, Python and plan.json.

A config is a frozen dataclass under `checks_itself` whose fields are made by `option` and whose `__post_init__` calls
`check_config`. A field
whose default is None and whose type is not optional is open: the stage's `resolve` settles it before it is used.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import ConfigError, CorruptArtifact
from ..files.sealed import Json
from .values import Unfit, fit_value, is_union, kind_text, misfit, nearest

T = TypeVar("T")
_SPEC = "option"
REQUIRED: Any = dataclasses.MISSING
# What a path names: a file, a folder, a folder inside `root`, or weights (a file, a checkpoint or random:SEED).
PathKind = Literal["file", "folder", "inside root", "weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is declared of an option besides its name, type and default."""

    help: str = ""
    metavar: str = ""
    flag: str = ""  # the name on the command line where it differs from the field
    at_least: float | int | None = None
    at_most: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    parse: Callable[[str], Any] | None = None  # text → the object whose `str` is that text
    path: PathKind | None = None
    is_argument: bool = False  # named by its place in a command
    open_word: str = ""  # a word that leaves the option open, as leaving it out does
    is_list_file: bool = False  # a command takes a file with one entry a line, a recipe that or the list itself
    is_repeated: bool = False  # a command takes one value each time the option is given
    without: tuple[str, ...] = ()  # options of a nested config that this command does not offer
    is_settled: bool = False  # no option: `resolve` finds the value
    changes_bytes: bool = True
    is_kept: bool = False


# Stands above a config: its values are checked by `check_config`, in sentences, and not by a checker of annotations.
checks_itself = typing.no_type_check


def option(default: Any = REQUIRED, help: str = "", *, changes_bytes: bool = True, **more: Any) -> Any:  # noqa: A002
    """A field of a config. `changes_bytes=False` keeps it out of every fingerprint; such a value is forgotten unless
    `is_kept`: then plan.json has it, for a retry that could not run without."""
    return dataclasses.field(default=default, metadata={_SPEC: Spec(help=help, changes_bytes=changes_bytes, **more)})


def field_for_resolve(default: Any = None, *, changes_bytes: bool = True, is_kept: bool = False) -> Any:
    """A field that no user gives: `resolve` settles it, such as the digest of a file that an option names."""
    return option(default, changes_bytes=changes_bytes, is_kept=is_kept, is_settled=True)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, whichever nested config its field stands in."""

    name: str
    hint: Any
    default: Any  # REQUIRED where there is none
    spec: Spec = Spec()

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


def spec_of(field: "dataclasses.Field[Any]") -> Spec:
    return typing.cast(Spec, field.metadata.get(_SPEC, Spec()))


def options_of(config: type[Any], layout: str = "") -> dict[str, Option]:
    """Name → option, those of nested configs among them; of variants those of `layout`, without it all as optional."""
    options: dict[str, Option] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if spec.is_settled:
            continue
        variants = variants_of(hint)
        if variants:
            named = [variants[layout]] if layout in variants else list(variants.values())
            for each in named:
                for name, one in options_of(each).items():
                    is_open = layout not in variants
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
    """The config of flat values, as `options_of` names them; raises ConfigError for what cannot work."""
    arguments: dict[str, Any] = {}
    for field, hint in _fields_of(config):
        spec = spec_of(field)
        if variants := variants_of(hint):
            arguments[field.name] = build_config(variants[layout], values)
        elif nested := config_inside(hint):
            given = {name: value for name, value in values.items() if name in options_of(nested)}
            required = [name for name, one in options_of(nested).items() if one.is_required]
            if all(given.get(name) for name in required):
                arguments[field.name] = build_config(nested, given)
            else:
                _refuse_alone(given, options_of(nested), required[0])
        elif not spec.is_settled and field.name in values:
            arguments[field.name] = values[field.name]
    return config(**arguments)


def _refuse_alone(given: Mapping[str, Any], options: Mapping[str, Option], needed: str) -> None:
    """Options of a nested config that is left out."""
    for name, value in given.items():
        if name != needed and value not in (None, options[name].default):
            raise ConfigError(f"{flag(name)} is of no use without {flag(needed)}; give both, or leave it out")


def flag(name: str) -> str:
    """An option as a command spells it, which is how messages name it."""
    return f"--{name.replace('_', '-')}"


def variants_of(hint: Any) -> dict[str, type[Any]]:
    """Layout → config, of a union of configs of which each names its layout."""
    members: Sequence[Any] = [each for each in typing.get_args(hint) if hasattr(each, "layout")]
    return {each.layout: each for each in members} if is_union(hint) else {}


def layouts_of(config: type[Any]) -> dict[str, type[Any]]:
    """Layout → config, where one of a config's fields has variants."""
    return next(filter(None, (variants_of(hint) for _, hint in _fields_of(config))), {})


def config_inside(hint: Any) -> type[Any] | None:
    """The config that a field holds, or may hold."""
    members = [each for each in typing.get_args(hint) if each is not types.NoneType] if is_union(hint) else [hint]
    is_nested = len(members) == 1 and dataclasses.is_dataclass(members[0]) and not hasattr(members[0], "layout")
    return typing.cast(type[Any], members[0]) if is_nested and _has_options(members[0]) else None


def _has_options(config: Any) -> bool:
    return any(_SPEC in field.metadata for field in dataclasses.fields(config))


def check_config(config: Any) -> None:
    """Reads text forms into their objects, and raises ConfigError for a value of another type or out of range."""
    for field, hint in _fields_of(type(config)):
        spec, value = spec_of(field), getattr(config, field.name)
        if value == spec.open_word and field.default is None and (value or spec.parse):  # said to be left open
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
            raise ConfigError(misfit(name, value, hint, unfit)) from None
        object.__setattr__(config, field.name, value)
        _refuse_out_of_range(name, value, spec)


def _refuse_out_of_range(name: str, value: Any, spec: Spec) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    wrong = (
        (spec.at_least is not None and not value >= spec.at_least)
        or (spec.at_most is not None and not value <= spec.at_most)
        or (spec.above is not None and not value > spec.above)
        or (spec.below is not None and not value < spec.below)
    )
    if wrong:
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
    """A config as JSON, nested ones under their field; what does not change bytes is left out."""
    values: dict[str, Json] = {}
    if hasattr(config, "layout"):  # which of several configs stands in a union
        values["layout"] = config.layout
    for field in dataclasses.fields(config):
        if spec_of(field).changes_bytes:
            values[field.name] = _json(getattr(config, field.name), spec_of(field))
    return values


def settings_json(config: Any) -> dict[str, Json]:
    """What a later run needs of a config besides what changes bytes, such as where the weights lay."""
    fields = [field for field in dataclasses.fields(config) if spec_of(field).is_kept]
    return {field.name: _json(getattr(config, field.name), spec_of(field)) for field in fields}


def config_from(cls: type[T], values: Mapping[str, Json]) -> T:
    """The config that `config_json` wrote. Settings that change no bytes take their defaults."""
    fields = {field.name: (field, hint) for field, hint in _fields_of(cls)}
    unknown = sorted(set(values) - set(fields) - {"layout"})
    if unknown:
        raise CorruptArtifact(
            f"the stored configuration has unknown fields {unknown}; it was written by a newer maskmill"
        )
    return cls(**{name: _from_stored(fields[name][1], value) for name, value in values.items() if name in fields})


def _from_stored(hint: Any, value: Json) -> Any:
    """What a stored value stands for: another config, a tuple, or itself."""
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else Any
        return tuple(_from_stored(inner, each) for each in value)
    if not isinstance(value, Mapping):
        return value
    if variants := variants_of(hint):
        return config_from(variants[value["layout"]], value)
    members = [each for each in (*typing.get_args(hint), hint) if dataclasses.is_dataclass(each)]
    return config_from(typing.cast(type[Any], members[0]), value) if members else value


def _json(value: Any, spec: Spec) -> Json:
    if spec.parse is not None:
        return "" if value is None else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_json(value)
    if isinstance(value, tuple | list):
        return [_json(item, Spec()) for item in value]
    return value


def read_table(said: Mapping[str, Any], options: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """The values of a table of a recipe, each as its option has it; and what is wrong, one sentence each."""
    values: dict[str, Any] = {}
    mistakes = [f"unknown key {name}; {nearest(name, options)}" for name in said if name not in options]
    for name, one in options.items():
        if name in said:
            hint = _table_hint(one)
            try:
                values[name] = fit_value(said[name], hint)
            except Unfit as unfit:
                mistakes.append(misfit(name, said[name], hint, unfit))
        elif one.is_required:
            mistakes.append(f"{name} is missing and must be {kind_text(_table_hint(one))}")
    return values, mistakes


def _table_hint(one: Option) -> Any:
    """A text form may be a number in a recipe, and a list the path of a file that has one entry a line."""
    if one.spec.parse is not None:
        return str | int | float
    if one.spec.open_word:
        literal: Any = Literal  # which type checkers let nobody make from values
        return literal[(one.spec.open_word, *typing.get_args(one.hint))]
    return str | one.hint if one.spec.is_list_file else one.hint


def _fields_of(config: type[Any]) -> list[tuple["dataclasses.Field[Any]", Any]]:
    hints = inspect.get_annotations(config, eval_str=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(config)]
