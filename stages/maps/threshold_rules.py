"""How a row's threshold is found: a number, Otsu's, or the kept mass.

Letters: R rows, T patches.
"""

import numpy as np
from jaxtyping import Bool, Float32

from ...manifests.errors import ConfigError
from .kept_mass import mass_thresholds
from .thresholds import otsu

OTSU = "otsu"
_KEPT = "kept-mass:"
PAPER_THRESHOLD = "0.4"
PAPER_WEIGHTS = "dino_deitsmall8_300ep_pretrain"  # the name of DINO's file that CST's threshold belongs to


def parse_threshold(text: str) -> str:
    """The one way to write a threshold; raises ConfigError."""
    number = text.removeprefix(_KEPT)
    try:
        value = float(number) if text != OTSU else 0.0
    except ValueError:
        value = -1.0
    is_kept = text.startswith(_KEPT)
    if not 0 <= value <= 1 or (is_kept and not value):
        raise ConfigError(
            f"threshold is {text!r} and must be otsu, a number from 0 to 1, or kept-mass: with a share above 0"
        )
    return text if text == OTSU else f"{_KEPT if is_kept else ''}{value:g}"


def thresholds(
    rule: str, map_RT: Float32[np.ndarray, "R T"], valid: Bool[np.ndarray, "R T"]
) -> tuple[Float32[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Of maps that are finite; and which of them have one value only."""
    if rule == OTSU:
        return otsu(map_RT, valid)
    if rule.startswith(_KEPT):
        return mass_thresholds(map_RT, valid, float(rule.removeprefix(_KEPT)))
    low_R = np.where(valid, map_RT, np.inf).min(axis=1)
    high_R = np.where(valid, map_RT, -np.inf).max(axis=1)
    return np.full(len(map_RT), float(rule), np.float32), low_R == high_R


def is_paper_weights(source: str) -> bool:
    return source.startswith(PAPER_WEIGHTS)
