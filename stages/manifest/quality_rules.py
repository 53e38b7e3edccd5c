"""Parses rules that refuse bad pseudo-labels, and defines the measures that they use. Imports nothing heavy.

The measures are this project's own choice, after the filters of similar tools.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The measures by the names that rules use; None if there is nothing to measure."""

    area: float  # share of the picture's pixels
    border_touch: float  # share of the picture's outermost pixels
    num_components: int  # pieces, joined at sides or corners
    largest_share: float | None  # share of the largest piece in the area; None without area
    mean_inside: float | None  # of the soft map; None without a map, or without pixels inside
    mean_outside: float | None
    entropy_inside: float | None  # mean −p log₂ p − (1−p) log₂(1−p) of the map clipped to 0–1; 1 is most uncertain
    entropy_outside: float | None
    agreement: float | None  # IoU of the class before and after refining; None if not refined, or absent from both
    method_agreement: float | None  # IoU with the class of another method; None without one, or absent from both


@dataclass(frozen=True, slots=True)
class Condition:
    name: str
    operator: str
    bound: float

    def refusal(self, quality: Quality) -> str:
        value = getattr(quality, self.name)
        if value is None:
            return f"{self.name} is not defined, asked {self.operator} {self.bound:.10g}"
        holds, opposite = _OPERATORS[self.operator]
        if holds(value, self.bound):
            return ""
        return f"{self.name} {_format_value(value, self.bound)} {opposite} {self.bound:.10g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all hold. A measure that is not defined fails its condition."""

    conditions: tuple[Condition, ...] = ()
    text: str = field(default="", compare=False)  # as it was written

    def __str__(self) -> str:
        return self.text

    @property
    def names(self) -> frozenset[str]:
        """The measures that it uses; some need a soft map or the labels before refining."""
        return frozenset(condition.name for condition in self.conditions)

    def refusal(self, quality: Quality) -> str:
        """ "" if the class is kept, else the first condition that fails with its value: "area 0.004 < 0.01"."""
        return next(filter(None, (condition.refusal(quality) for condition in self.conditions)), "")


_NAMES = tuple(measure.name for measure in fields(Quality))
_ANY_SIZE = ("num_components", "mean_inside", "mean_outside")  # the others are from 0 to 1
_OPERATORS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    ">=": (operator.ge, "<"),
    "<=": (operator.le, ">"),
    ">": (operator.gt, "<="),
    "<": (operator.lt, ">="),
}
_CONDITION = re.compile(r"\s*(\w+)\s*([^\w\s.+-]+)\s*(\S+)\s*")
_EXAMPLE = "area>=0.01,agreement>=0.5"


def parse_rule(text: str) -> Rule:
    """A rule such as "area>=0.01,area<=0.95,agreement>=0.5"; the empty text keeps everything."""
    return Rule(tuple(_condition(part) for part in text.split(",")), text) if text.strip() else Rule(text=text)


def _condition(part: str) -> Condition:
    match = _CONDITION.fullmatch(part)
    if not match:
        raise ConfigError(f"{part.strip()!r} is not a condition of a quality rule; write one as {_EXAMPLE}")
    name, sign, value = match.groups()
    if name not in _NAMES:
        raise ConfigError(f"unknown measure {name!r} in a quality rule; {nearest(name, _NAMES)}")
    if sign not in _OPERATORS:
        raise ConfigError(f"{part.strip()!r} of a quality rule compares with {sign!r}; use {', '.join(_OPERATORS)}")
    return Condition(name, sign, _parse_bound(name, value))


def _parse_bound(name: str, text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"a quality rule compares {name} with {text!r}, expected a number; write {_EXAMPLE}")
    if name not in _ANY_SIZE and not 0 <= bound <= 1:
        raise ConfigError(f"a quality rule compares {name} with {text}, expected a number from 0 to 1; change it")
    return bound


def _format_value(value: float | int, bound: float) -> str:
    """Three digits, or all if three would equal the bound."""
    short = f"{value:.3g}"
    return str(value) if isinstance(value, int) or float(short) == bound != value else short
