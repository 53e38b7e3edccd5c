"""The training loop: one step after the other, from where the last checkpoint was."""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from ...manifests.errors import Diverged
from ...manifests.underway import Underway
from .lesson import Batch, Lesson
from .state import metric_line, restored, state_bytes

KEEP_EVERY_S = 120.0  # a checkpoint: what is lost at most when a training is killed
LOG_EVERY_S = 10.0
_ROWS_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long, and from which seed."""

    steps: int
    steps_per_epoch: int
    seed: int


def train(lesson: Lesson, course: Course, underway: Underway) -> list[str]:
    """The metric lines. Losses and what is watched are in them; rates are in the log alone, so that the lines of a
    training that was stopped are those of one that was not."""
    first, lines = _resumed(lesson, underway)
    kept_at = time.monotonic()
    rates = _Rates(underway)
    for step, batch in _batches(lesson, range(first, course.steps), rates):
        values = _step(lesson, course, step, batch)
        if (step + 1) % course.steps_per_epoch == 0 or step + 1 == course.steps:
            values |= lesson.watch(step)
        lines.append(metric_line(step, values))
        rates.count(step, len(batch.ids), values)
        if time.monotonic() - kept_at > KEEP_EVERY_S:
            underway.keep(f"{step + 1:09d}.safetensors", state_bytes(lesson, step + 1, lines))
            kept_at = time.monotonic()
    return lines


def _resumed(lesson: Lesson, underway: Underway) -> tuple[int, list[str]]:
    for _, data in underway.latest():
        step, lines = restored(lesson, data)
        underway.log({"event": "resumed", "step": step})
        return step, lines
    return 0, []


def _step(lesson: Lesson, course: Course, step: int, batch: Batch) -> dict[str, Any]:
    torch.manual_seed(_mixed(course.seed, step))  # of dropped paths and the like, whatever came before
    _set_rates(lesson, step)
    with torch.autocast(lesson.device.type, lesson.autocast, enabled=lesson.autocast is not None):
        losses = lesson.losses(step, batch)
    total = float(losses.total.detach())
    values = {"loss": total} | {name: float(value.detach()) for name, value in losses.parts.items()}
    if not math.isfinite(total):
        named = ", ".join(batch.ids[:_ROWS_NAMED]) + (" …" if len(batch.ids) > _ROWS_NAMED else "")
        raise Diverged(
            f"the loss at step {step} is {total:g}, over {named}; nothing was updated with it. Choose a lower learning "
            "rate, or look at these pictures"
        )
    lesson.optimiser.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    if lesson.clip:
        parameters = [each for group in lesson.optimiser.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, lesson.clip)
    lesson.optimiser.step()
    lesson.after(step)
    return values


def _set_rates(lesson: Lesson, step: int) -> None:
    for group in lesson.optimiser.param_groups:
        group["lr"] = lesson.learning_rate.at(step)
        if lesson.weight_decay is not None and group["weight_decay"]:
            group["weight_decay"] = lesson.weight_decay.at(step)


def _mixed(seed: int, step: int) -> int:
    """Far apart for neighbours: seeds that lie close give numbers that look alike (splitmix64's odd constants)."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) % 2**63


class _Rates:
    """Pictures a second, and the share of time that was spent waiting for them."""

    def __init__(self, underway: Underway) -> None:
        self._underway = underway
        self._since = time.monotonic()
        self._rows, self.waited_s = 0, 0.0

    def count(self, step: int, rows: int, values: Mapping[str, Any]) -> None:
        self._rows += rows
        passed = time.monotonic() - self._since
        if passed > LOG_EVERY_S:
            rate, share = self._rows / passed, self.waited_s / passed
            self._underway.log({"event": "step", "step": step, "rows_per_s": rate, "waiting": share, **values})
            self._since, self._rows, self.waited_s = time.monotonic(), 0, 0.0


def _batches(lesson: Lesson, steps: range, rates: _Rates) -> Iterator[tuple[int, Batch]]:
    """Each batch, of which the next is made meanwhile."""
    with ThreadPoolExecutor(1, "maskmill-batch") as reader:
        coming: Future[Batch] | None = reader.submit(lesson.batch, steps[0]) if steps else None
        for step in steps:
            assert coming is not None
            began = time.monotonic()
            batch = coming.result()
            rates.waited_s += time.monotonic() - began
            coming = reader.submit(lesson.batch, step + 1) if step + 1 < steps.stop else None
            yield step, batch
