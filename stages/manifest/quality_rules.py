"""Rules that refuse pseudo-labels which look bad, and the measures that they know. What a user writes, nothing heavy.

The measures are this project's own choice of what users of neighbouring tools filter by.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from ...manifests.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """None where there is nothing to measure; the names are those that rules know."""

    area: float  # share of the picture's pixels
    border_touch: float  # share of the picture's outermost pixels
    num_components: int  # pieces, joined at sides or corners
    largest_share: float | None  # of the area, the largest piece's; None without area
    mean_inside: float | None  # of the soft map; None without a map, or without pixels inside
    mean_outside: float | None
    entropy_inside: float | None  # mean −p log₂ p − (1−p) log₂(1−p) of the map clipped to 0–1: 1 is as unsure as can be
    entropy_outside: float | None
    agreement: float | None  # IoU of the class before and after refining; None if it was not refined, or in neither
    method_agreement: float | None  # with the class in another method's label map; None without one, or in neither


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
        return (
            ""
            if holds(value, self.bound)
            else f"{self.name} {_format_value(value, self.bound)} {opposite} {self.bound:.10g}"
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that all must hold. What is not defined holds no condition: nothing is kept unmeasured."""

    conditions: tuple[Condition, ...] = ()
    text: str = field(default="", compare=False)  # as it was written

    def __str__(self) -> str:
        return self.text

    @property
    def names(self) -> frozenset[str]:
        """The measures that it asks for, some of which need a soft map or labels before refining."""
        return frozenset(condition.name for condition in self.conditions)

    def refusal(self, quality: Quality) -> str:
        """ "" if it is kept, else the first condition that fails with the value found: "area 0.004 < 0.01"."""
        return next(filter(None, (condition.refusal(quality) for condition in self.conditions)), "")


_NAMES = tuple(each.name for each in fields(Quality))
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
    found = _CONDITION.fullmatch(part)
    if not found:
        raise ConfigError(f"{part.strip()!r} is not a condition of a quality rule; write one as {_EXAMPLE}")
    name, sign, value = found.groups()
    if name not in _NAMES:
        near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"choose among {', '.join(_NAMES)}"
        raise ConfigError(f"quality rules have no measure {name!r}; {meant}")
    if sign not in _OPERATORS:
        raise ConfigError(f"{part.strip()!r} of a quality rule compares with {sign!r}; use {', '.join(_OPERATORS)}")
    return Condition(name, sign, _parse_bound(name, value))


def _parse_bound(name: str, text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"a quality rule compares {name} with {text!r}, which is not a number; write {_EXAMPLE}")
    if name not in _ANY_SIZE and not 0 <= bound <= 1:
        raise ConfigError(f"a quality rule compares {name} with {text}, and it is from 0 to 1; write such a number")
    return bound


def _format_value(value: float | int, bound: float) -> str:
    """As short as tells it from the bound."""
    short = f"{value:.3g}"
    is_mistaken = float(short) == bound != value
    return str(value) if is_mistaken or isinstance(value, int) else short
