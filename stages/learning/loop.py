"""The training loop, which resumes from the last checkpoint."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...manifests.artifact.underway import Underway
from ...manifests.errors import Diverged, EnvironmentFault, Terminated
from ...manifests.files import torchrun
from ..read_ahead import read_ahead
from .lesson import Batch, Lesson
from .processes import OthersLost, average_gradients, broadcast_bytes, gather_all, gather_texts, process_group
from .state import TrainingProgress, restore_lesson, state_bytes
from .stopping import Stops, catch_stops

KEEP_EVERY_S = 60.0  # less often if checkpoints take long to write; a stopped training also writes one
MOST_LINES = 50_000
LOG_EVERY_S = 10.0
_ROWS_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    steps: int
    steps_per_epoch: int
    seed: int

    def ends_epoch(self, step: int) -> bool:
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.steps

    def has_line(self, step: int) -> bool:
        """At the end of every epoch, and at other steps so that there are about MOST_LINES lines at most."""
        return self.ends_epoch(step) or step % -(-self.steps // MOST_LINES) == 0


def train(lesson: Lesson, course: Course, underway: Underway) -> list[str]:
    """Trains, and gives the metric lines: losses and watched metrics. Throughput goes to the log only, so that a
    resumed training has the same lines. Only the first process watches and writes checkpoints."""
    with process_group(lesson.device), catch_stops() as stops:
        return _run_steps(lesson, course, underway, stops)


def _run_steps(lesson: Lesson, course: Course, underway: Underway, stops: Stops) -> list[str]:
    begun = _resume_progress(lesson, underway)
    lines = begun.lines

    def add_line(step: int, values: Mapping[str, Any]) -> None:
        lines.append(json.dumps({"step": step, **values}))
        underway.show(step, values)

    reached: TrainingProgress | None = begun  # the resumable state; None while weights change
    keeper, rates = _Keeper(lesson, underway), _Rates(underway, course)
    try:
        if begun.unwatched and not (lines and json.loads(lines[-1])["step"] == begun.step - 1):
            with stops.raise_at_once():
                add_line(begun.step - 1, _add_watched_values(lesson, begun.step - 1, json.loads(begun.unwatched)))
        for step, batch in _batches(lesson, range(begun.step, course.steps), rates):
            values, stop = _compute_losses(lesson, course, step, batch, stops)
            reached = None
            _update(lesson, step, batch)
            if course.ends_epoch(step):
                reached = TrainingProgress(step + 1, lines, json.dumps(values))
                stops.raise_for(stop)
                with stops.raise_at_once():
                    add_line(step, _add_watched_values(lesson, step, values))
            elif course.has_line(step):
                add_line(step, values)
            reached = TrainingProgress(step + 1, lines)
            stops.raise_for(stop)
            rates.count(step, batch.rows, lines[-1])
            keeper.keep_if_due(reached)
    except (KeyboardInterrupt, Terminated, OthersLost) as error:
        if reached is not None:
            keeper.keep(reached)
        if isinstance(error, OthersLost):  # they may have received the signal earlier
            underway.log({"event": "others lost", "error": str(error.__cause__)})
            stops.raise_for(stops.noted)
        raise
    except torch.OutOfMemoryError as error:
        raise EnvironmentFault(
            f"{lesson.device} is out of memory for one step; choose a smaller batch, fewer or smaller views, or a "
            "lower precision"
        ) from error
    return lines


def _add_watched_values(lesson: Lesson, step: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first process does this while the others wait in the next step."""
    return {**values, **lesson.watch(step)} if torchrun.number() == 0 else values


def _resume_progress(lesson: Lesson, underway: Underway) -> TrainingProgress:
    """All processes start from the first process's checkpoint or initial state."""
    progress = TrainingProgress(0, [])
    for _, data in underway.latest():
        progress = restore_lesson(lesson, data)
        underway.log({"event": "resumed", "step": progress.step})
        break
    if torchrun.num_processes() == 1:
        return progress
    underway.log({"event": "together", "processes": torchrun.num_processes()})
    is_first = torchrun.number() == 0
    return restore_lesson(lesson, broadcast_bytes(state_bytes(lesson, progress) if is_first else b""))


class _Keeper:
    """Writes checkpoints, at most a twentieth of the time."""

    def __init__(self, lesson: Lesson, underway: Underway) -> None:
        self._lesson, self._underway = lesson, underway
        self._next = time.monotonic() + KEEP_EVERY_S

    def keep_if_due(self, progress: TrainingProgress) -> None:
        if (began := time.monotonic()) > self._next:
            self.keep(progress)
            ended = time.monotonic()
            self._next = ended + max(KEEP_EVERY_S, 20 * (ended - began) if KEEP_EVERY_S > 0 else 0)

    def keep(self, progress: TrainingProgress) -> None:
        if self._underway.keeps:
            self._underway.keep(f"{progress.step:09d}.safetensors", state_bytes(self._lesson, progress))


def _compute_losses(
    lesson: Lesson, course: Course, step: int, batch: Batch, stops: Stops
) -> tuple[dict[str, Any], int]:
    """Computes gradients; gives the losses averaged over processes, and a signal that any of them has received. Changes
    nothing that a checkpoint holds."""
    # Seeds dropped paths and the like; mixed, because torch reads the low 32 bits of a seed only.
    torch.manual_seed(int(np.random.SeedSequence((course.seed, step)).generate_state(1)[0]))
    _set_rates(lesson, step)
    with torch.autocast(lesson.device.type, lesson.autocast, enabled=lesson.autocast is not None):
        losses = lesson.losses(step, batch)
    lesson.optimiser.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    average_gradients(_parameters(lesson))
    own_V = torch.stack([value.detach().float() for value in (losses.total, *losses.parts.values())])
    every_PV = gather_all(torch.cat([own_V, own_V.new_tensor([stops.noted])])).cpu()
    is_finite_P = every_PV[:, 0].isfinite()
    if not is_finite_P.all():
        first = every_PV[~is_finite_P, 0][0].item()
        raise _divergence_error(f"the loss at step {step} is {first:g}", batch, is_finite_P.logical_not().tolist())
    values = every_PV[:, :-1].mean(dim=0).tolist()
    return dict(zip(("loss", *losses.parts), values, strict=True)), int(every_PV[:, -1].max())


def _update(lesson: Lesson, step: int, batch: Batch) -> None:
    """Clips each parameter's gradient by its own norm (DINO and MC-SSL, utils.py clip_gradients), and goes a step."""
    gradients = [each.grad for each in _parameters(lesson) if each.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(each) for each in gradients])
    if not norms.isfinite().all():
        raise _divergence_error(f"a gradient at step {step} is not finite", batch, [True] * torchrun.num_processes())
    if lesson.clip:
        for gradient, share in zip(gradients, (lesson.clip / (norms + 1e-6)).clamp_max(1), strict=True):
            gradient.mul_(share)
    lesson.optimiser.step()
    lesson.after(step)


def _parameters(lesson: Lesson) -> list[Tensor]:
    return [each for group in lesson.optimiser.param_groups for each in group["params"]]


def _divergence_error(what: str, batch: Batch, is_concerned: Sequence[bool]) -> Diverged:
    """Called by all processes together; names rows of the processes concerned."""
    ids_by_process = [json.loads(text) for text in gather_texts(json.dumps(list(batch.ids()[: _ROWS_NAMED + 1])))]
    ids = [name for names, is_named in zip(ids_by_process, is_concerned, strict=True) for name in names if is_named]
    named = ", ".join(ids[:_ROWS_NAMED]) + (" …" if len(ids) > _ROWS_NAMED else "")
    return Diverged(
        f"{what}, over {named}; nothing was updated with it. Choose a lower learning rate, or check these pictures"
    )


def _set_rates(lesson: Lesson, step: int) -> None:
    for group in lesson.optimiser.param_groups:
        group["lr"] = lesson.learning_rate.at(step)
        if lesson.weight_decay is not None and group["weight_decay"]:
            group["weight_decay"] = lesson.weight_decay.at(step)


class _Rates:
    """Reports rows per second, the share of time spent waiting for batches, and the time left."""

    def __init__(self, underway: Underway, course: Course) -> None:
        self._underway, self._course = underway, course
        self._since = self._epoch_since = time.monotonic()
        self._rows = self._epoch_rows = 0
        self._epoch_steps = 0
        self.waited_s = 0.0

    def count(self, step: int, rows: int, line: str) -> None:
        rows *= torchrun.num_processes()
        self._rows += rows
        self._epoch_rows += rows
        self._epoch_steps += 1
        now = time.monotonic()
        if (passed := now - self._since) > LOG_EVERY_S:
            rate, share = self._rows / passed, self.waited_s / passed
            self._underway.log({"event": "step", "rows_per_s": rate, "waiting": share, **json.loads(line)})
            self._since, self._rows, self.waited_s = now, 0, 0.0
        if self._course.ends_epoch(step):
            self._report_epoch(step, now - self._epoch_since, json.loads(line))
            self._epoch_since, self._epoch_rows, self._epoch_steps = now, 0, 0

    def _report_epoch(self, step: int, passed: float, values: Mapping[str, Any]) -> None:
        course = self._course
        metrics = ", ".join(
            f"{n} {value:.3g}" for n, value in values.items() if n != "step" and not isinstance(value, str)
        )
        left_min = (course.steps - step - 1) * passed / self._epoch_steps / 60
        self._underway.say(
            f"epoch {(step + 1) // course.steps_per_epoch} of {course.steps // course.steps_per_epoch}: {metrics}; "
            f"{self._epoch_rows / passed:.0f} rows/s, {left_min:.0f} min left"
        )


def _batches(lesson: Lesson, steps: range, rates: _Rates) -> Iterator[tuple[int, Batch]]:
    """Each batch; a thread makes the next one meanwhile."""
    with closing(read_ahead(lesson.batch, steps)) as batches:
        for step in steps:
            began = time.monotonic()
            batch = next(batches)
            rates.waited_s += time.monotonic() - began
            yield step, batch
