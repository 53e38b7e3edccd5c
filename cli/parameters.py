"""The shell options of a config, generated from its declarations."""

import math
import typing
from typing import Any, Literal

import click

from ..manifests.artifact.config import Option, flag
from ..manifests.artifact.values import is_list, members_of


class PartType(click.ParamType[tuple[int, int]]):
    """I/N, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            part, parts = (int(number) for number in str(value).split("/"))
        except ValueError:
            self.fail(f"{value!r} is not of the form I/N, such as 1/16", param, ctx)
        if not 1 <= part <= parts:
            self.fail(f"part {part} of {parts} does not exist; parts count from 1 to N", param, ctx)
        return part, parts


class SizeType(click.ParamType[tuple[int, int]]):
    """S, or HxW."""

    name = "S|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        rows, cross, columns = str(value).lower().partition("x")
        if not rows.isdecimal() or (cross and not columns.isdecimal()):
            self.fail(
                f"{value!r} is not a size; write a side such as 224, or rows and columns such as 384x512", param, ctx
            )
        return int(rows), int(columns or rows)


class FloatRange(click.FloatRange):
    """click's own takes NaN, which is not below or above any limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def click_option(one: Option) -> click.Option:
    """The shell option of a config's option; None means that it was left out."""
    spec, default = one.spec, None if one.is_required else one.default
    names = [f"--{spec.flag}" if spec.flag else flag(one.name), one.name]
    if one.hint is bool:
        names[0] += f"/--no-{names[0][2:]}" if default else ""
        return click.Option(names, is_flag=True, default=default, show_default=bool(default), help=spec.help)
    if is_list(one.hint) and not spec.is_repeated:
        default = ",".join(default or ())
    elif spec.parse is not None:
        default = "" if default is None else str(default)
    default = spec.open_word or (None if default == "" and one.hint is not str else default)
    presence: dict[str, Any] = {"required": True} if one.is_required else {"default": default}
    return click.Option(
        names,
        type=_click_type(one),
        **presence,
        multiple=spec.is_repeated,
        metavar=spec.metavar or None,
        show_default=default not in (None, "", ()),
        help=spec.help,
    )


def _click_type(one: Option) -> Any:
    spec = one.spec
    hint = typing.get_args(one.hint)[0] if spec.is_repeated else one.hint
    if type(None) in typing.get_args(hint):
        hint = members_of(hint)[0]
    if spec.parse is not None or is_list(hint):
        return str
    if typing.get_origin(hint) is Literal:
        return click.Choice([*([spec.open_word] if spec.open_word else []), *typing.get_args(hint)])
    if typing.get_origin(hint) is tuple:
        return PartType() if one.name == "part" else SizeType()
    if hint in (int, float):
        low: Any = spec.above if spec.at_least is None else spec.at_least
        high: Any = spec.below if spec.at_most is None else spec.at_most
        if low is None and high is None:
            return hint
        kind = click.IntRange if hint is int else FloatRange
        return kind(low, high, min_open=spec.above is not None, max_open=spec.below is not None)
    return hint
