"""Convert values from a shell, TOML or JSON to the type of an option, and describe those that do not fit."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Union

_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


class Unfit(Exception):
    """A value does not fit its option; the text says what is expected."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name, as the end of a message."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"it can be {', '.join(names)}"


def fit_value(value: Any, hint: Any) -> Any:
    """The value converted to the hint, such as a list to a tuple or a whole number to a float; raises Unfit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_union(hint):
        return None if value is None and types.NoneType in arguments else _fit_to_any(value, hint)
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
            return _fit_items(value, arguments[0], hint)
    elif hint is Any or origin is Callable:
        return value
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is (origin or hint):  # not isinstance: true is not a number
        return value
    raise Unfit(kind_text(hint))


def _fit_to_any(value: Any, hint: Any) -> Any:
    for member in members_of(hint):
        try:
            return fit_value(value, member)
        except Unfit:
            continue
    raise Unfit(kind_text(hint))


def _fit_items(values: Sequence[Any], inner: Any, hint: Any) -> tuple[Any, ...]:
    """The items of a list; Unfit describes the whole list."""
    try:
        return tuple(fit_value(value, inner) for value in values)
    except Unfit:
        raise Unfit(kind_text(hint)) from None


def kind_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_union(hint):
        members = members_of(hint)
        return " or ".join(kind_text(member) for member in members if not (member is int and float in members))
    if origin is Literal:
        return " or ".join(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"{kind_text(arguments[0])} or a list of {len(arguments)}"
    if origin in (tuple, Sequence):
        return f"a list, each item {kind_text(arguments[0])}"
    return _KINDS.get(origin or hint, f"a {getattr(hint, '__name__', hint)}")


def members_of(hint: Any) -> list[Any]:
    """The members of a union, without None; else the hint itself."""
    return [member for member in typing.get_args(hint) if member is not types.NoneType] if is_union(hint) else [hint]


def _nearest_word(value: Any, hint: Any) -> str:
    literals = [member for member in members_of(hint) if typing.get_origin(member) is Literal]
    words = [word for literal in literals for word in typing.get_args(literal)]
    near = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _value_text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    kind = "" if isinstance(value, bool) else f" ({_KINDS.get(type(value), 'a date or time')})"
    return (text if len(text) <= 60 else f"{text[:57]}…") + kind


def is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple and Ellipsis in typing.get_args(hint)


def is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def misfit(name: str, value: Any, hint: Any, unfit: Unfit) -> str:
    return f"{name} is {_value_text(value)} and must be {unfit}{_nearest_word(value, hint)}"
