"""What is learned, as the loop sees it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .schedules import Schedule


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step looks at."""

    rows: int
    tensors: Mapping[str, Tensor]
    ids: Callable[[], Sequence[str]]  # of its rows, asked for when a loss is no number


@dataclass(frozen=True, slots=True)
class Losses:
    total: Tensor  # the one that is learned from
    parts: Mapping[str, Tensor]  # what it is made of, for the metric lines


def no_follow_up(step: int) -> None: ...


def no_metrics(step: int) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    modules: Mapping[str, nn.Module]  # all that has state: with the optimiser's this is what a checkpoint holds
    optimiser: torch.optim.Optimizer
    batch: Callable[[int], Batch]  # of a step; called in a thread, ahead
    losses: Callable[[int, Batch], Losses]
    after: Callable[[int], None] = no_follow_up  # once the weights have changed: the teacher follows
    watch: Callable[[int], Mapping[str, Any]] = no_metrics  # at the end of an epoch
    learning_rate: Schedule
    weight_decay: Schedule | None = None  # of the parameter groups that have any
    clip: float = 0.0  # the largest norm of a gradient; 0: any
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
