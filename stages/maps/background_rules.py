"""How background comes into a picture's soft maps: the rules that a user can name.

The background has a threshold of each map, a score to beat, two scores, or a map of its own.
"""

import math
from dataclasses import dataclass

from ...manifests.errors import ConfigError

BACKGROUND_FORMS = "rows (each map's own threshold), map, constant:SCORE, power:EXPONENT or two:LOW,HIGH"


@dataclass(frozen=True, slots=True)
class RowThresholds:
    """Each row has its threshold: a pixel may be of the class where the map is above it, and of these the highest score
    wins. The scores are compared as they are, not by how far they are above their thresholds: a pixel's best class does
    not depend on where another class was cut."""

    def __str__(self) -> str:
        return "rows"


@dataclass(frozen=True, slots=True)
class OwnRow:
    """The background has a map of its own, the row of class 0, as of a network that predicts it among the classes."""

    def __str__(self) -> str:
        return "map"


@dataclass(frozen=True, slots=True)
class ConstantScore:
    """The background has one score everywhere."""

    score: float

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ConfigError(f"the background rule is {self}, and its score must be from 0 to 1, as in constant:0.4")

    def __str__(self) -> str:
        return f"constant:{self.score!r}"


@dataclass(frozen=True, slots=True)
class PowerOfRest:
    """The background's score is (1 − the highest map) ** exponent; the higher the exponent, the less background."""

    exponent: float

    def __post_init__(self) -> None:
        if not 0 < self.exponent < math.inf:
            raise ConfigError(f"the background rule is {self}, and its exponent must be above 0, as in power:1")

    def __str__(self) -> str:
        return f"power:{self.exponent!r}"


@dataclass(frozen=True, slots=True)
class TwoScores:
    """Foreground is what beats the high score, background what does not even beat the low one, the rest 255 (IRN)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(
                f"the background rule is {self}, and its scores must be from 0 to 1, "
                "the lower one first, as in two:0.05,0.3"
            )

    def __str__(self) -> str:
        return f"two:{self.low!r},{self.high!r}"


BackgroundRule = RowThresholds | OwnRow | ConstantScore | PowerOfRest | TwoScores


def parse_background(text: str) -> BackgroundRule:
    """The rule that a user wrote; `str` of a rule is such a text."""
    name, colon, rest = text.strip().partition(":")
    numbers = _numbers(rest) if colon else ()
    match name, numbers:
        case "rows", () if not colon:
            return RowThresholds()
        case "map", () if not colon:
            return OwnRow()
        case "constant", (score,):
            return ConstantScore(score)
        case "power", (exponent,):
            return PowerOfRest(exponent)
        case "two", (low, high):
            return TwoScores(low, high)
    raise ConfigError(
        f"the background rule is {text!r}, and must be {BACKGROUND_FORMS}, for example constant:0.4 or two:0.05,0.3"
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        return ()
