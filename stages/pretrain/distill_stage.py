"""Distillation from stored tokens as a stage: data, lesson, held-out cosines, checkpoint.

Letters: N rows, B of a batch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from ...manifests.artifact.pixels import Pixels
from ...manifests.artifact.underway import Underway
from ..learning.lesson import Batch, Lesson
from ..learning.loop import Course, train
from ..learning.processes import own_batch_slice
from ..learning.schedules import Schedule
from ..stage import Findings, Inputs
from ..vision.backbone import backbone_facts
from .batch_rows import draw_batch_rows
from .config import TEACHER, PretrainConfig
from .distill_held_out import HeldOut, best_loss, class_tokens, hold_out_rows, try_losses
from .distill_losses import DistillLoss, measure_scale
from .distilling import STRENGTHS, Distilled, Distilling, Prepared
from .draws import draws_at
from .network import copy_as_teacher, parameter_groups
from .refusals import refuse_unworkable_settings
from .starting import finish_backbone, own_torch_device, start_backbone
from .stored_teacher import StoredTeacher, open_teacher
from .views import CPU, draw_crops
from .watching import Watched, choose_watched_pictures, nearest_centroid

NUM_MEASURED = 1024  # pictures that the mean and deviation of the teacher's tokens are measured on
WEIGHT_DECAY, CLIP, LAST_RATE = 0.05, 3.0, 1e-6
MOST_TRIAL_STEPS, TRIAL_SHARE = 100, 20  # of the trial of each loss; at most a twentieth of all steps


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from, and what it is judged on."""

    pixels: Pixels
    teacher: StoredTeacher
    rows: Int64[np.ndarray, " N"]  # learned from
    held_out: HeldOut
    watched: Watched


def distill(config: PretrainConfig, inputs: Inputs, underway: Underway) -> Findings:
    material = load_material(config, inputs)
    epoch_steps = len(material.rows) // config.batch
    course = Course(steps=epoch_steps * config.epochs, steps_per_epoch=epoch_steps, seed=config.seed)
    batch = make_batches(config, material, epoch_steps)
    distilling = make_distilling(config, material, batch, course, underway)
    lesson = make_lesson(config, distilling, course, batch, lambda step: watch(distilling, material))
    lines = train(lesson, course, underway)
    last = json.loads(lines[-1])
    facts = {
        "kind": "backbone",
        "backbone": config.backbone,
        "teacher": inputs[TEACHER].plan.facts["backbone"]["name"],
        "distill_loss": distilling.choice.loss,
        "pictures": len(material.rows),
        "pictures_held_out": len(material.held_out.rows),
        **mean_held_out_cosine(last),
        "steps": course.steps,
    }
    return finish_backbone(config, distilling.average.backbone, lines, facts)


def load_material(config: PretrainConfig, inputs: Inputs) -> Material:
    """Checks everything before anything is computed."""
    pixels = Pixels(inputs["pixels"])
    teacher, usable = open_teacher(inputs, config.distill_block)
    rows, judged = hold_out_rows(usable, config.seed)
    refuse_unworkable_settings(config, pixels, len(rows), distills=True)
    grid = backbone_facts(config.backbone, config.global_size, config.global_size).grid
    watched = choose_watched_pictures(pixels, inputs["images"], usable, config.seed)
    return Material(pixels, teacher, rows, HeldOut(judged, pixels, teacher, grid), watched)


def make_batches(config: PretrainConfig, material: Material, epoch_steps: int) -> Callable[[int], Batch]:
    """Pictures, their crops, and the teacher's tokens at the student's patches of these crops."""
    part, pixels = own_batch_slice(), material.pixels
    rows_at = draw_batch_rows(material.rows, config.batch, epoch_steps, config.seed, part)
    strengths = _strengths(config, material)

    def batch(step: int) -> Batch:
        rows = rows_at(step)
        crops = draw_crops(len(rows), pixels.size[0], strengths, draws_at(config.seed, step, 0, part=part), CPU)
        targets = material.teacher.match(rows, crops, material.held_out.grid)
        tensors = {
            "pictures": torch.from_numpy(pixels.at(rows)).permute(0, 3, 1, 2).contiguous(),
            "crops": crops.box_B4,
            "is_flipped": crops.is_flipped_B,
            "tokens": targets.tokens_BMD,
            "is_counted": targets.is_counted_BT,
        }
        return Batch(len(rows), tensors, lambda: pixels.ids_at(rows))

    return batch


def make_distilling(
    config: PretrainConfig, material: Material, batch: Callable[[int], Batch], course: Course, underway: Underway
) -> Distilling:
    facts = backbone_facts(config.backbone, config.global_size, config.global_size)
    device, part = own_torch_device(config), own_batch_slice()
    measured = np.random.default_rng([config.seed, 4]).permutation(material.rows)[:NUM_MEASURED]
    scale = measure_scale(material.teacher.read(np.sort(measured)))
    student = start_backbone(config, 0.0, lambda backbone: Distilled(backbone, material.teacher.width))
    prepared = Prepared(config, _strengths(config, material), scale.to(device), (facts.mean, facts.std), part)
    steps = max(1, min(MOST_TRIAL_STEPS, course.steps // TRIAL_SHARE))

    def choose(distilling: Distilling) -> DistillLoss:
        cosines = try_losses(prepared, distilling.student, batch, material.held_out, steps, _rate(config))
        loss = best_loss(cosines)
        told = ", ".join(f"{name} {cosine:.3f}" for name, cosine in cosines.items())
        underway.log({"event": "loss chosen", "loss": loss, "steps": steps, "held_out_cosine": dict(cosines)})
        underway.say(f"learning with {loss}: held-out cosine after {steps} steps was {told}")
        return loss

    return Distilling(prepared, student.train(), copy_as_teacher(student), choose)


def make_lesson(
    config: PretrainConfig,
    distilling: Distilling,
    course: Course,
    batch: Callable[[int], Batch],
    watch: Callable[[int], Mapping[str, Any]],
) -> Lesson:
    device = own_torch_device(config)
    return Lesson(
        modules={"student": distilling.student, "average": distilling.average, "choice": distilling.choice},
        optimiser=torch.optim.AdamW(parameter_groups(distilling.student, WEIGHT_DECAY)),
        batch=batch,
        losses=lambda step, loaded: distilling.losses(
            step, {name: value.to(device, non_blocking=True) for name, value in loaded.tensors.items()}
        ),
        after=lambda step: distilling.update_average(config.momentum),
        watch=watch,
        learning_rate=Schedule(
            start=_rate(config), end=LAST_RATE, steps=course.steps, warmup=config.warmup * course.steps_per_epoch
        ),
        clip=CLIP,
        device=device,
        autocast=torch.bfloat16 if config.autocast == "bfloat16" else None,
    )


def watch(distilling: Distilling, material: Material) -> dict[str, float]:
    """Metrics of the moving average for an epoch's last line; in the first process only."""
    average, prepared = distilling.average, distilling.prepared
    values = material.held_out.cosines(average, prepared)
    tokens = class_tokens(average, material.pixels, material.watched.positions, prepared).cpu()
    accuracy = nearest_centroid(tokens, torch.from_numpy(material.watched.classes))
    return values | ({} if accuracy is None else {"nearest_centroid": accuracy})


def mean_held_out_cosine(last: Mapping[str, Any]) -> dict[str, float]:
    """Of the last metric line; nothing in the other processes of torchrun, which do not watch."""
    cosines = [value for name, value in last.items() if name.startswith("held-out")]
    return {"held_out_cosine": round(sum(cosines) / len(cosines), 4)} if cosines else {}


def _strengths(config: PretrainConfig, material: Material) -> Any:
    flipped = STRENGTHS.flipped if material.teacher.flipped else 0.0
    return replace(STRENGTHS, size_px=config.global_size, flipped=flipped)


def _rate(config: PretrainConfig) -> float:
    return config.learning_rate * config.batch / 256
