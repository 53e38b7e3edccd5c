"""The threshold of each map by a rule.

Letters: R rows, T patches.
"""

from typing import assert_never

import numpy as np
from jaxtyping import Bool, Float32

from .kept_mass import mass_thresholds
from .threshold_rules import Constant, KeptMass, Otsu, ThresholdRule
from .thresholds import otsu


def row_thresholds(
    rule: ThresholdRule, map_RT: Float32[np.ndarray, "R T"], valid: Bool[np.ndarray, "R T"]
) -> tuple[Float32[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """The threshold of each finite map, and which maps are constant."""
    match rule:
        case Otsu():
            return otsu(map_RT, valid)
        case KeptMass(share):
            return mass_thresholds(map_RT, valid, share)
        case Constant(value):
            low_R = np.where(valid, map_RT, np.inf).min(axis=1)
            high_R = np.where(valid, map_RT, -np.inf).max(axis=1)
            return np.full(len(map_RT), value, np.float32), low_R == high_R
        case _:
            assert_never(rule)
