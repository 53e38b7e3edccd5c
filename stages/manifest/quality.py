"""How good a pseudo-label looks without ground truth, per (image, class), and rules that refuse those that look bad.

Letters: H W pixels.

The measures are this project's own choice of what users of neighbouring tools filter by. An undecided pixel (255) is
neither inside nor outside of a class.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage  # type: ignore[import-untyped]

from ...manifests.classes import IGNORE
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

    @property
    def names(self) -> frozenset[str]:
        """The measures that it asks for, some of which need a soft map or labels before refining."""
        return frozenset(condition.name for condition in self.conditions)

    def refusal(self, quality: Quality) -> str:
        """ "" if it is kept, else the first condition that fails with the value found: "area 0.004 < 0.01"."""
        return next(filter(None, (condition.refusal(quality) for condition in self.conditions)), "")


_NAMES = tuple(field.name for field in fields(Quality))
_ANY_SIZE = ("num_components", "mean_inside", "mean_outside")  # the others are from 0 to 1
_OPERATORS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    ">=": (operator.ge, "<"),
    "<=": (operator.le, ">"),
    ">": (operator.gt, "<="),
    "<": (operator.lt, ">="),
}
_CONDITION = re.compile(r"\s*(\w+)\s*([^\w\s.+-]+)\s*(\S+)\s*")
_EXAMPLE = "area>=0.01,agreement>=0.5"


def measure_quality(
    label_HW: UInt8[np.ndarray, "H W"],
    label: int,
    soft_HW: Float32[np.ndarray, "H W"] | None = None,
    before_HW: UInt8[np.ndarray, "H W"] | None = None,
    other_HW: UInt8[np.ndarray, "H W"] | None = None,
) -> Quality:
    """Of one class in a label map, with its soft map, the label map before refining and another method's where there
    are any. What only one of two label maps leaves undecided is not agreed on."""
    inside_HW = label_HW == label
    outside_HW = ~inside_HW & (label_HW != IGNORE)
    sizes = _component_sizes(inside_HW)
    entropy_HW = None if soft_HW is None else _entropy(soft_HW)
    return Quality(
        area=float(inside_HW.mean()),
        border_touch=float(_border(inside_HW).mean()),
        num_components=len(sizes),
        largest_share=float(sizes.max() / sizes.sum()) if len(sizes) else None,
        mean_inside=_mean(soft_HW, inside_HW),
        mean_outside=_mean(soft_HW, outside_HW),
        entropy_inside=_mean(entropy_HW, inside_HW),
        entropy_outside=_mean(entropy_HW, outside_HW),
        agreement=None if before_HW is None else _iou(before_HW == label, inside_HW),
        method_agreement=None if other_HW is None else _iou(other_HW == label, inside_HW),
    )


def parse_rule(text: str) -> Rule:
    """A rule such as "area>=0.01,area<=0.95,agreement>=0.5"; the empty text keeps everything."""
    return Rule(tuple(_condition(part) for part in text.split(","))) if text.strip() else Rule()


def _condition(part: str) -> Condition:
    found = _CONDITION.fullmatch(part)
    if not found:
        raise ConfigError(f"{part.strip()!r} is no condition of a quality rule; write them as {_EXAMPLE}")
    name, sign, value = found.groups()
    if name not in _NAMES:
        near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"choose of {', '.join(_NAMES)}"
        raise ConfigError(f"a quality rule knows no {name!r}; {meant}")
    if sign not in _OPERATORS:
        raise ConfigError(f"{part.strip()!r} of a quality rule compares with {sign!r}; use {', '.join(_OPERATORS)}")
    return Condition(name, sign, _bound(name, value))


def _bound(name: str, text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"a quality rule compares {name} with {text!r}, which is no number; write {_EXAMPLE}")
    if name not in _ANY_SIZE and not 0 <= bound <= 1:
        raise ConfigError(f"a quality rule compares {name} with {text}, and it is from 0 to 1; write such a number")
    return bound


def _format_value(value: float | int, bound: float) -> str:
    """As short as tells it from the bound."""
    short = f"{value:.3g}"
    is_mistaken = float(short) == bound != value
    return str(value) if is_mistaken or isinstance(value, int) else short


def _component_sizes(mask_HW: Bool[np.ndarray, "H W"]) -> np.ndarray:
    component_HW = np.zeros(mask_HW.shape, np.int32)
    ndimage.label(mask_HW, structure=np.ones((3, 3), int), output=component_HW)
    return np.bincount(component_HW.ravel())[1:]


def _border(mask_HW: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, " border"]:
    border_HW = np.ones_like(mask_HW)
    border_HW[1:-1, 1:-1] = False
    return mask_HW[border_HW]


def _entropy(soft_HW: Float32[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    p_HW = np.clip(soft_HW.astype(np.float64), 0, 1)
    return _bits(p_HW) + _bits(1 - p_HW)


def _bits(p_HW: Float64[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    return -p_HW * np.log2(p_HW, out=np.zeros_like(p_HW), where=p_HW > 0)


def _mean(values_HW: np.ndarray | None, mask_HW: Bool[np.ndarray, "H W"]) -> float | None:
    if values_HW is None or not mask_HW.any():
        return None
    mean = float(values_HW[mask_HW].mean(dtype=np.float64))
    assert math.isfinite(mean), "soft maps are finite"
    return mean


def _iou(first_HW: Bool[np.ndarray, "H W"], second_HW: Bool[np.ndarray, "H W"]) -> float | None:
    union = int((first_HW | second_HW).sum())
    return int((first_HW & second_HW).sum()) / union if union else None
