"""Background rules by the names that users write: thresholds per map, one score, two scores, or a background map."""

import math
from dataclasses import dataclass

from ...manifests.errors import ConfigError

BACKGROUND_FORMS = "rows (each map's own threshold), map, constant:SCORE, power:EXPONENT, two:LOW,HIGH"


@dataclass(frozen=True, slots=True)
class RowThresholds:
    """Each row has its own threshold. Among the classes whose map exceeds its threshold at a pixel, the highest score
    wins. Raw scores are compared, not their distances to the thresholds, so that a pixel's best class does not depend
    on where another class was cut."""

    def __str__(self) -> str:
        return "rows"


@dataclass(frozen=True, slots=True)
class OwnRow:
    """The background has its own map, the row of class 0, from a network that predicts background as a class."""

    def __str__(self) -> str:
        return "map"


@dataclass(frozen=True, slots=True)
class ConstantScore:
    """The background has one score everywhere."""

    score: float

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ConfigError(
                f"background rule {self} has a score outside 0 to 1; choose one inside, such as constant:0.4"
            )

    def __str__(self) -> str:
        return f"constant:{self.score!r}"


@dataclass(frozen=True, slots=True)
class PowerOfRest:
    """The background's score is (1 − the highest map) ** exponent; the higher the exponent, the less background."""

    exponent: float

    def __post_init__(self) -> None:
        if not 0 < self.exponent < math.inf:
            raise ConfigError(f"background rule {self} does not have an exponent above 0; choose one, such as power:1")

    def __str__(self) -> str:
        return f"power:{self.exponent!r}"


@dataclass(frozen=True, slots=True)
class TwoScores:
    """Pixels above the high score are foreground, pixels not above the low one background, the rest 255 (IRN)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(
                f"background rule {self} does not have two rising scores from 0 to 1; choose such scores, for example "
                "two:0.05,0.3"
            )

    def __str__(self) -> str:
        return f"two:{self.low!r},{self.high!r}"


BackgroundRule = RowThresholds | OwnRow | ConstantScore | PowerOfRest | TwoScores


def parse_background(text: str, forms: str = BACKGROUND_FORMS) -> BackgroundRule:
    """The inverse of `str(rule)`. `forms` are those to choose from when it is not a rule."""
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
    raise ConfigError(f"background {text!r} is not a rule; choose {forms}, for example constant:0.4 or two:0.05,0.3")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        return ()
