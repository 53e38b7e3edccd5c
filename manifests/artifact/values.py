"""Values as a type has them: read from a shell, TOML or JSON, and the sentence for one that does not fit."""

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
    """A value that is not what its option takes; says what is expected."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a name."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"it can be {', '.join(names)}"


def fit_value(value: Any, hint: Any) -> Any:
    """The value as the hint has it: a list as a tuple, a whole number as a float; raises Unfit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_union(hint):
        return None if value is None and types.NoneType in arguments else _fit_to_any(value, _members(hint), hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        raise Unfit(f"a {getattr(hint, '__name__', hint)}")
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple and Ellipsis not in arguments:
        values = value if isinstance(value, list | tuple) else [value] * len(arguments)  # one stands for all of them
        if len(values) == len(arguments):
            return tuple(fit_value(each, inner) for each, inner in zip(values, arguments, strict=True))
    elif origin in (tuple, Sequence):
        if isinstance(value, list | tuple):
            return tuple(_fit_item(each, arguments[0], hint) for each in value)
    elif hint is Any or origin is Callable:
        return value
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is (origin or hint):  # not isinstance: true is no number
        return value
    raise Unfit(kind_text(hint))


def _fit_to_any(value: Any, members: Sequence[Any], hint: Any) -> Any:
    for member in members:
        try:
            return fit_value(value, member)
        except Unfit:
            continue
    raise Unfit(kind_text(hint))


def _fit_item(value: Any, inner: Any, hint: Any) -> Any:
    """One value of a list; what is expected is said of the list."""
    try:
        return fit_value(value, inner)
    except Unfit:
        raise Unfit(kind_text(hint)) from None


def kind_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_union(hint):
        members = _members(hint)
        return " or ".join(kind_text(each) for each in members if not (each is int and float in members))
    if origin is Literal:
        return " or ".join(arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"{kind_text(arguments[0])} or a list of {len(arguments)}"
    if origin in (tuple, Sequence):
        return f"a list, each of it {kind_text(arguments[0])}"
    return _KINDS.get(origin or hint, f"a {getattr(hint, '__name__', hint)}")


def _members(hint: Any) -> list[Any]:
    """Without None, which TOML cannot say: a key that is left out says it."""
    return [each for each in typing.get_args(hint) if each is not types.NoneType]


def _nearest_word(value: Any, hint: Any) -> str:
    """The nearest of the words that an option takes."""
    members = _members(hint) if is_union(hint) else [hint]
    words = [word for each in members if typing.get_origin(each) is Literal for word in typing.get_args(each)]
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
