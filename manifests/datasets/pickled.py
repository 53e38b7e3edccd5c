"""Reads pickled lists of names without unpickling.

A pickle is a program for a small machine. `pickletools` disassembles it and runs nothing. This module follows only the
instructions that make dicts, lists, whole numbers and text; it refuses all others, such as classes and calls.
"""

import pickletools
from collections.abc import Iterator
from typing import Any

from ..errors import InputError

_NOTHING = {"PROTO", "FRAME"}
_PUSH = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}
_PUSH |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_EMPTY: dict[str, type[dict[Any, Any]] | type[list[Any]]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_REMEMBER, _RECALL = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def plain_values(data: bytes, where: str) -> object:
    """The value of a pickle that holds only dicts, lists, whole numbers and text."""
    try:
        return _run_instructions(pickletools.genops(data), where)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is not a complete pickle ({str(error)[:80]}); copy or download it again") from error


def _run_instructions(instructions: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]], where: str) -> object:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        height = marks.pop()
        values = stack[height:]
        del stack[height:]
        return values

    for opcode, argument, _ in instructions:
        match opcode.name:
            case name if name in _NOTHING:
                pass
            case name if name in _PUSH:
                stack.append(argument)
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case name if name in _REMEMBER:
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case name if name in _RECALL:
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                values = since_mark()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "LIST":
                stack.append(since_mark())
            case "DICT":
                values = since_mark()
                stack.append(dict(zip(values[::2], values[1::2], strict=True)))
            case "STOP":
                return stack.pop()
            case name:
                what = f"{name} {argument}" if isinstance(argument, str) else name
                raise InputError(
                    f"{where} holds more than lists of names ({what[:80]}) and is not opened; use the published list"
                )
    raise ValueError("it has no end")
