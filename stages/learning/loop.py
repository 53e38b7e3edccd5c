"""The training loop: one step after the other, from where the last checkpoint was."""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...manifests.errors import Diverged, Terminated
from ...manifests.underway import Underway
from .lesson import Batch, Lesson
from .state import metric_line, restored, state_bytes

KEEP_EVERY_S = 60.0  # a checkpoint: what is lost at most when a training is killed; stopped, it keeps where it is
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
    whole: int | None
    whole, lines = _resumed(lesson, underway)
    kept_at = time.monotonic()
    rates = _Rates(underway, course)
    try:
        for step, batch in _batches(lesson, range(whole, course.steps), rates):
            values = _found(lesson, course, step, batch)
            whole = None  # until everything has followed
            _update(lesson, step)
            is_epoch = (step + 1) % course.steps_per_epoch == 0 or step + 1 == course.steps
            values |= lesson.watch(step) if is_epoch else {}
            lines.append(metric_line(step, values))
            whole = step + 1
            rates.count(step, len(batch.ids), values, is_epoch)
            if time.monotonic() - kept_at > KEEP_EVERY_S:
                _keep(lesson, whole, lines, underway)
                kept_at = time.monotonic()
    except (KeyboardInterrupt, Terminated):
        if whole is not None:
            _keep(lesson, whole, lines, underway)
        raise
    return lines


def _keep(lesson: Lesson, step: int, lines: list[str], underway: Underway) -> None:
    underway.keep(f"{step:09d}.safetensors", state_bytes(lesson, step, lines))


def _resumed(lesson: Lesson, underway: Underway) -> tuple[int, list[str]]:
    for _, data in underway.latest():
        step, lines = restored(lesson, data)
        underway.log({"event": "resumed", "step": step})
        return step, lines
    return 0, []


def _found(lesson: Lesson, course: Course, step: int, batch: Batch) -> dict[str, Any]:
    """The losses, with gradients where they are to be; nothing that a checkpoint holds has changed."""
    # Of dropped paths and the like, whatever came before; mixed, because torch reads the low 32 bits of a seed only.
    torch.manual_seed(int(np.random.SeedSequence((course.seed, step)).generate_state(1)[0]))
    _set_rates(lesson, step)
    with torch.autocast(lesson.device.type, lesson.autocast, enabled=lesson.autocast is not None):
        losses = lesson.losses(step, batch)
    total = float(losses.total.detach())
    if not math.isfinite(total):
        named = ", ".join(batch.ids[:_ROWS_NAMED]) + (" …" if len(batch.ids) > _ROWS_NAMED else "")
        raise Diverged(
            f"the loss at step {step} is {total:g}, over {named}; nothing was updated with it. Choose a lower learning "
            "rate, or look at these pictures"
        )
    lesson.optimiser.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    return {"loss": total} | {name: float(value.detach()) for name, value in losses.parts.items()}


def _update(lesson: Lesson, step: int) -> None:
    if lesson.clip:
        parameters = [each for group in lesson.optimiser.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, lesson.clip)
    lesson.optimiser.step()
    lesson.after(step)


def _set_rates(lesson: Lesson, step: int) -> None:
    for group in lesson.optimiser.param_groups:
        group["lr"] = lesson.learning_rate.at(step)
        if lesson.weight_decay is not None and group["weight_decay"]:
            group["weight_decay"] = lesson.weight_decay.at(step)


class _Rates:
    """Pictures a second, the share of time that was spent waiting for them, and how long it will take."""

    def __init__(self, underway: Underway, course: Course) -> None:
        self._underway, self._course = underway, course
        self._since = self._epoch_since = time.monotonic()
        self._rows = self._epoch_rows = 0
        self._epoch_steps = 0
        self.waited_s = 0.0

    def count(self, step: int, rows: int, values: Mapping[str, Any], is_epoch: bool) -> None:
        self._rows, self._epoch_rows, self._epoch_steps = (
            self._rows + rows,
            self._epoch_rows + rows,
            self._epoch_steps + 1,
        )
        now = time.monotonic()
        if (passed := now - self._since) > LOG_EVERY_S:
            rate, share = self._rows / passed, self.waited_s / passed
            self._underway.log({"event": "step", "step": step, "rows_per_s": rate, "waiting": share, **values})
            self._since, self._rows, self.waited_s = now, 0, 0.0
        if is_epoch:
            self._say(step, now - self._epoch_since, values)
            self._epoch_since, self._epoch_rows, self._epoch_steps = now, 0, 0

    def _say(self, step: int, passed: float, values: Mapping[str, Any]) -> None:
        course = self._course
        told = ", ".join(f"{name} {value:.3g}" for name, value in values.items() if isinstance(value, int | float))
        left_min = (course.steps - step - 1) * passed / self._epoch_steps / 60
        self._underway.say(
            f"epoch {(step + 1) // course.steps_per_epoch} of {course.steps // course.steps_per_epoch}: {told}; "
            f"{self._epoch_rows / passed:.0f} rows/s, {left_min:.0f} min left"
        )


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
