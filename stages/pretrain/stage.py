"""Pretraining of a vision transformer: masked image modelling, clustering and contrast, or distillation.

Letters: N pictures, B of a batch.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from ...manifests.artifact.pixels import FIELD, Pixels
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..learning.lesson import Batch, Lesson
from ..learning.loop import Course, train
from ..learning.processes import own_batch_slice
from ..learning.schedules import Schedule
from ..stage import Findings, Inputs, WholeStage
from ..vision.backbone import backbone_facts
from ..vision.builtin import full_backbone_name
from ..vision.weights import weights_of
from .batch_rows import draw_batch_rows
from .config import FLIPPED, PRETRAIN, TEACHER, PretrainConfig
from .distill_stage import distill
from .network import Network, copy_as_teacher, parameter_groups
from .refusals import refuse_unworkable_settings
from .starting import METRICS as METRICS, finish_backbone, own_torch_device, start_backbone
from .stored_teacher import FIELD as TOKENS
from .teaching import Teaching
from .watching import choose_watched_pictures, collapse_warning, measure_teacher

DROP_PATH, CLIP, LAST_RATE = 0.1, 3.0, 1e-6
WEIGHT_DECAY = (0.04, 0.4)


def reads(config: PretrainConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    teachers = [name for name in (TEACHER, FLIPPED) if name in inputs]
    for name in teachers:
        Tokens(inputs[name]).require([TOKENS])
    tokens = {name: array_names(inputs[name], [TOKENS]) for name in teachers}
    return {"pixels": (FIELD,), **tokens, "images": ("labels",)}


def compute(config: PretrainConfig, inputs: Inputs, underway: Underway) -> Findings:
    if TEACHER in inputs:
        return distill(config, inputs, underway)
    if FLIPPED in inputs:
        raise ConfigError("--distill-flipped needs --distill, the tokens of the pictures themselves; give both")
    pixels = Pixels(inputs["pixels"])
    positions = pixels.ok_positions()
    refuse_unworkable_settings(config, pixels, len(positions))
    epoch_steps = len(positions) // config.batch
    facts = backbone_facts(config.backbone, config.global_size, config.global_size)
    teaching = make_teaching(config, facts.mean, facts.std, epoch_steps)
    watched = choose_watched_pictures(pixels, inputs["images"], positions, config.seed)
    course = Course(steps=epoch_steps * config.epochs, steps_per_epoch=epoch_steps, seed=config.seed)

    def watch(step: int) -> Mapping[str, Any]:
        values = measure_teacher(teaching, pixels, watched, facts.mean, facts.std)
        warning = collapse_warning(config, values)
        if not warning:
            return values
        underway.log({"event": "collapse", "step": step, "warning": warning})
        underway.say(f"after step {step}, {warning}")
        return {**values, "warning": warning}

    lesson = make_lesson(config, teaching, course, batches(config, pixels, positions, epoch_steps), watch)
    lines = train(lesson, course, underway)
    last = json.loads(lines[-1])
    counts = {"kind": "backbone", "backbone": config.backbone, "pictures": len(positions), "steps": course.steps}
    warnings = [last["warning"]] if "warning" in last else []
    return finish_backbone(config, teaching.teacher.backbone, lines, counts, warnings)


def make_teaching(config: PretrainConfig, mean: Any, std: Any, epoch_steps: int) -> Teaching:
    """Leaves torch's global random state unchanged."""
    student = start_backbone(
        config, DROP_PATH, lambda backbone: Network(backbone, config.clusters, config.hidden)
    ).train()
    return Teaching(config, student, copy_as_teacher(student), mean, std, epoch_steps, own_batch_slice())


def make_lesson(
    config: PretrainConfig,
    teaching: Teaching,
    course: Course,
    batch: Callable[[int], Batch],
    watch: Callable[[int], Mapping[str, Any]],
) -> Lesson:
    momentum = Schedule(start=config.momentum, end=1.0, steps=course.steps)
    rate = config.learning_rate * config.batch / 256
    device = own_torch_device(config)
    return Lesson(
        modules={"student": teaching.student, "teacher": teaching.teacher, "centres": teaching.centres},
        optimiser=torch.optim.AdamW(parameter_groups(teaching.student, WEIGHT_DECAY[0])),
        batch=batch,
        losses=lambda step, loaded: teaching.losses(step, loaded.tensors["pictures"].to(device, non_blocking=True)),
        after=lambda step: teaching.update_teacher(momentum.at(step)),
        watch=watch,
        learning_rate=Schedule(
            start=rate,
            end=LAST_RATE,
            steps=course.steps,
            warmup=config.warmup * course.steps_per_epoch,
        ),
        weight_decay=Schedule(start=WEIGHT_DECAY[0], end=WEIGHT_DECAY[1], steps=course.steps),
        clip=CLIP,
        device=device,
        autocast=torch.bfloat16 if config.autocast == "bfloat16" else None,
    )


def batches(
    config: PretrainConfig, pixels: Pixels, positions: Int64[np.ndarray, " N"], epoch_steps: int
) -> Callable[[int], Batch]:
    rows_at = draw_batch_rows(positions, config.batch, epoch_steps, config.seed, own_batch_slice())

    def batch(step: int) -> Batch:
        chosen = rows_at(step)
        pictures = torch.from_numpy(pixels.at(chosen)).permute(0, 3, 1, 2).contiguous()
        return Batch(len(chosen), {"pictures": pictures}, lambda: pixels.ids_at(chosen))

    return batch


def resolve(config: PretrainConfig, inputs: Inputs) -> PretrainConfig:
    """Fills in timm's name of the backbone, and the digest of the first weights; a known digest is not read again."""
    backbone = full_backbone_name(config.backbone)
    if not config.initial_weights or config.initial_sha256:
        return replace(config, backbone=backbone)
    sha256 = weights_of(backbone, config.initial_weights).sha256
    given = config.initial_weights
    return replace(
        config,
        backbone=backbone,
        initial_sha256=sha256,
        initial_weights=os.path.abspath(given) if os.path.exists(given) else given,
    )


STAGE = WholeStage(
    command=PRETRAIN,
    code_version=1,
    resolve=resolve,
    compute=compute,
    reads=reads,
    takes_long=True,
    libraries=("torch", "timm", "numpy"),
    device=lambda config: str(config.device).partition(":")[0],
)
