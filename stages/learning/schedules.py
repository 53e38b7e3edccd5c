"""Schedules of learning rate, weight decay, momentum and temperature."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecay:
    """From `start`, multiplied by `factor` after every so many steps."""

    start: float
    factor: float
    every: int

    def at(self, step: int) -> float:
        return float(self.start * self.factor ** (step // self.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """From `start` to `end` over `steps`, after a linear warm-up from `first`."""

    start: float
    end: float
    steps: int
    shape: Literal["cosine", "linear"] = "cosine"
    warmup: int = 0
    first: float = 0.0

    def at(self, step: int) -> float:
        """The last step has nearly the value of `end`, as in DINO's tables."""
        if step < self.warmup:
            return self.first + (self.start - self.first) * step / max(1, self.warmup - 1)
        share = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.shape == "linear":
            return self.start + (self.end - self.start) * share
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2
