"""Numbers that change as a training goes on: learning rate, weight decay, momentum, temperature."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """From `start` to `end` over so many steps, after a linear rise from `first` in the warm-up steps."""

    start: float
    end: float
    steps: int
    shape: Literal["cosine", "linear"] = "cosine"
    warmup: int = 0
    first: float = 0.0

    def at(self, step: int) -> float:
        """Step 0 has the first value, the last step nearly the end's, as DINO's tables have it."""
        if step < self.warmup:
            return self.first + (self.start - self.first) * step / max(1, self.warmup - 1)
        share = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.shape == "linear":
            return self.start + (self.end - self.start) * share
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2
