"""Threshold rules as users write them: a number, otsu, or kept-mass. Imports nothing heavy."""

from dataclasses import dataclass

from ...manifests.errors import ConfigError

THRESHOLD_FORMS = "otsu, a number from 0 to 1, or kept-mass:SHARE"
PAPER_WEIGHTS = "dino_deitsmall8_300ep_pretrain"  # DINO's file that CST's threshold was chosen for
_KEPT = "kept-mass:"


@dataclass(frozen=True, slots=True)
class Otsu:
    def __str__(self) -> str:
        return "otsu"


@dataclass(frozen=True, slots=True)
class Constant:
    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class KeptMass:
    share: float

    def __str__(self) -> str:
        return f"{_KEPT}{self.share:g}"


ThresholdRule = Otsu | Constant | KeptMass
PAPER_THRESHOLD = Constant(0.4)


def parse_threshold(text: str) -> ThresholdRule:
    """The inverse of `str(rule)`. Numbers are rounded to six digits, as in the text."""
    if text == "otsu":
        return Otsu()
    try:
        value = float(f"{float(text.removeprefix(_KEPT)):g}")
    except ValueError:
        value = -1.0
    is_kept = text.startswith(_KEPT)
    if not 0 <= value <= 1 or (is_kept and not value):
        raise ConfigError(f"threshold {text!r} is not a rule; choose {THRESHOLD_FORMS} with a share above 0")
    return KeptMass(value) if is_kept else Constant(value)


def is_paper_weights(source: str) -> bool:
    return source.startswith(PAPER_WEIGHTS)
