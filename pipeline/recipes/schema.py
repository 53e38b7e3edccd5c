"""What a table of a recipe may say: the parameters of the functions that take it, so that the two cannot differ."""

import difflib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from ...manifests.artifact.artifact import Artifact

Taker = Callable[..., Any]  # a function or a dataclass whose parameters are the keys of a table
Said = Mapping[str, Any]

_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    hint: Any
    is_required: bool = False


class Unfit(Exception):
    """A value that is not what its option takes; says what is expected."""


def options_of(*takers: Taker) -> dict[str, Option]:
    """Name → option, of all the functions together. Artifacts are no options: the steps before make them."""
    found: dict[str, Option] = {}
    for taker in takers:
        hints = typing.get_type_hints(taker)
        for name, parameter in inspect.signature(taker).parameters.items():
            if hints[name] is not Artifact:
                found[name] = Option(name, hints[name], parameter.default is inspect.Parameter.empty)
    return found


def one_of(names: Iterable[str]) -> Any:
    """What an option takes that is one of some words."""
    literal: Any = Literal  # which type checkers let nobody make from values
    return literal[tuple(names)]


def artifacts_of(taker: Taker) -> list[str]:
    """The parameters that are artifacts, which are called as the roles that they have."""
    hints = typing.get_type_hints(taker)
    return [name for name in inspect.signature(taker).parameters if hints[name] is Artifact]


def read_table(said: Said, options: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """The values of a table, each as its option has it; and what is wrong, one sentence each, without where it is."""
    values: dict[str, Any] = {}
    mistakes = [f"{name} is no key; {nearest(name, options)}" for name in said if name not in options]
    for name, option in options.items():
        if name in said:
            try:
                values[name] = _fitted(said[name], option.hint)
            except Unfit as unfit:
                meant = _meant(said[name], option.hint)
                mistakes.append(f"{name} is {_shown(said[name])} and must be {unfit}{meant}")
        elif option.is_required:
            mistakes.append(f"{name} is missing and must be {_expected(option.hint)}")
    return values, mistakes


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a name."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"it can be {', '.join(names)}"


def _fitted(value: Any, hint: Any) -> Any:
    """The value as the hint has it: a list as a tuple, a whole number as a float; raises Unfit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _fitted_to_any(value, _members(hint), hint)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple and Ellipsis not in arguments:
        values = value if isinstance(value, list) else [value] * len(arguments)  # one stands for all of them
        if len(values) == len(arguments):
            return tuple(_fitted(each, inner) for each, inner in zip(values, arguments, strict=True))
    elif origin in (tuple, Sequence):
        if isinstance(value, list):
            return tuple(_fitted_in(each, arguments[0], hint) for each in value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is (origin or hint):  # not isinstance: true is no number
        return value
    raise Unfit(_expected(hint))


def _fitted_to_any(value: Any, members: Sequence[Any], hint: Any) -> Any:
    for member in members:
        try:
            return _fitted(value, member)
        except Unfit:
            continue
    raise Unfit(_expected(hint))


def _fitted_in(value: Any, inner: Any, hint: Any) -> Any:
    """One value of a list; what is expected is told of the list."""
    try:
        return _fitted(value, inner)
    except Unfit:
        raise Unfit(_expected(hint)) from None


def _expected(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        members = _members(hint)
        return " or ".join(_expected(each) for each in members if not (each is int and float in members))
    if origin is Literal:
        return " or ".join(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"{_expected(arguments[0])} or a list of {len(arguments)}"
    if origin in (tuple, Sequence):
        return f"a list, each of it {_expected(arguments[0])}"
    return _KINDS[origin or hint]


def _members(hint: Any) -> list[Any]:
    """Without None, which TOML cannot say: a key that is left out says it."""
    return [each for each in typing.get_args(hint) if each is not types.NoneType]


def _meant(value: Any, hint: Any) -> str:
    """The nearest of the words that an option takes."""
    members = _members(hint) if typing.get_origin(hint) in (Union, types.UnionType) else [hint]
    words = [word for each in members if typing.get_origin(each) is Literal for word in typing.get_args(each)]
    near = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    kind = "" if isinstance(value, bool) else f" ({_KINDS.get(type(value), 'a date or time')})"
    return (text if len(text) <= 60 else f"{text[:57]}…") + kind
