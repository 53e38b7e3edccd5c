"""The interface between the training loop and what is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .schedules import Schedule, StepDecay


@dataclass(frozen=True, slots=True)
class Batch:
    rows: int
    tensors: Mapping[str, Tensor]
    ids: Callable[[], Sequence[str]]  # of its rows; called only if a loss is not finite


@dataclass(frozen=True, slots=True)
class Losses:
    total: Tensor  # optimised
    parts: Mapping[str, Tensor]  # components of the total, for the metric lines


def no_follow_up(step: int) -> None: ...


def no_metrics(step: int) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    modules: Mapping[str, nn.Module]  # everything with state; a checkpoint holds these and the optimiser
    optimiser: torch.optim.Optimizer
    batch: Callable[[int], Batch]  # loads the batch of a step; called ahead in a thread
    losses: Callable[[int, Batch], Losses]
    after: Callable[[int], None] = no_follow_up  # called after the update, such as to update the teacher
    watch: Callable[[int], Mapping[str, Any]] = no_metrics  # more metrics at the end of an epoch
    learning_rate: Schedule | StepDecay
    weight_decay: Schedule | None = None  # for parameter groups with weight decay
    clip: float = 0.0  # largest norm of a gradient; 0 disables clipping
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
