"""Self-supervised pretraining of a vision transformer: masked image modelling, clustering, contrast.

Letters: N pictures, B of a batch.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from safetensors.torch import save

from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from ...manifests.artifact.pixels import FIELD, Pixels
from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ...manifests.files.torchrun import num_processes
from ..learning.lesson import Batch, Lesson
from ..learning.loop import Course, train
from ..learning.processes import own_batch_slice, own_device
from ..learning.schedules import Schedule
from ..stage import Findings, Inputs, WholeStage
from ..vision.backbone import backbone_facts, find_device
from ..vision.builtin import full_backbone_name
from .config import PRETRAIN, PretrainConfig
from .draws import draws_at
from .network import Network, Shape, copy_as_teacher, parameter_groups, replace_drop_paths
from .teaching import Teaching
from .watching import choose_watched_pictures, collapse_warning, measure_teacher

METRICS = "metrics.jsonl"
DROP_PATH, CLIP, LAST_RATE = 0.1, 3.0, 1e-6
WEIGHT_DECAY = (0.04, 0.4)


def reads(config: PretrainConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"pixels": (FIELD,), "images": ("labels",)}


def compute(config: PretrainConfig, inputs: Inputs, underway: Underway) -> Findings:
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
    state = {name: value.cpu().contiguous() for name, value in teaching.teacher.backbone.state_dict().items()}
    return Findings(
        files={
            WEIGHTS: save(state, {"licence": config.licence}),
            METRICS: "".join(line + "\n" for line in lines).encode(),
            SEEN: training_ids_json([], [], [], []),  # labels are used for metrics only
        },
        facts={"kind": "backbone", "backbone": config.backbone, "pictures": len(positions), "steps": course.steps},
        warnings=[last["warning"]] if "warning" in last else [],
    )


def refuse_unworkable_settings(config: PretrainConfig, pixels: Pixels, count: int) -> None:
    """Checks the options against the input before anything is computed."""
    patch_rows, patch_columns = backbone_facts(config.backbone, config.global_size, config.global_size).patch
    rows_px, columns_px = pixels.size
    if rows_px != columns_px:
        raise ConfigError(
            f"{pixels.artifact.place} holds pictures of {rows_px}x{columns_px}, expected square ones; make them with "
            f"`maskmill pixels --image-size {min(rows_px, columns_px)}`"
        )
    if patch_rows != patch_columns:
        raise ConfigError(
            f"--backbone {config.backbone} has patches of {patch_rows}x{patch_columns}; choose one with square patches"
        )
    if config.smaller_views and config.local_size % patch_rows:
        raise ConfigError(
            f"--local-size {config.local_size} is not a multiple of {config.backbone}'s patch size; choose a multiple "
            f"of {patch_rows}"
        )
    if config.align and config.global_size % config.align:
        raise ConfigError(
            f"--align {config.align} does not divide --global-size {config.global_size}; choose a divisor, or 0 for "
            "the patch size"
        )
    for option, size, is_used in (
        ("--global-size", config.global_size, True),
        ("--local-size", config.local_size, config.smaller_views > 0),
    ):
        if is_used and size > rows_px:
            raise ConfigError(
                f"{option} {size} exceeds the {rows_px} pixels of the pictures in {pixels.artifact.place}; choose a "
                f"smaller view, or make larger pictures with `maskmill pixels --image-size {size}`"
            )
    if config.batch % num_processes():
        raise ConfigError(
            f"--batch {config.batch} does not divide evenly over the {num_processes()} processes of torchrun; choose a "
            f"multiple of {num_processes()}"
        )
    if num_processes() > 1 and config.device.startswith("cuda:"):
        raise ConfigError(
            f"--device {config.device} is one device, and torchrun started {num_processes()} processes; choose cuda, "
            "so that each process takes its own"
        )
    if count < config.batch:
        raise ConfigError(
            f"{pixels.artifact.place} holds {count_of(count, 'usable picture')}, fewer than --batch {config.batch}; "
            "choose a smaller --batch, or index more pictures"
        )


def make_teaching(config: PretrainConfig, mean: Any, std: Any, epoch_steps: int) -> Teaching:
    """Leaves torch's global random state unchanged."""
    shape = Shape(
        backbone=config.backbone,
        size_px=config.global_size,
        num_clusters=config.clusters,
        hidden=config.hidden,
        drop_path=DROP_PATH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws_at(config.seed).generator.initial_seed())
        student = Network(shape)
    part = own_batch_slice()
    if part.count > 1:
        replace_drop_paths(student.backbone, part, config.batch // part.count)
    student = student.to(_device(config)).train()
    return Teaching(config, student, copy_as_teacher(student), mean, std, epoch_steps, part)


def make_lesson(
    config: PretrainConfig,
    teaching: Teaching,
    course: Course,
    batch: Callable[[int], Batch],
    watch: Callable[[int], Mapping[str, Any]],
) -> Lesson:
    momentum = Schedule(start=config.momentum, end=1.0, steps=course.steps)
    rate = config.learning_rate * config.batch / 256
    device = _device(config)
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
    """This process's slice of each batch. An epoch has its own order, and drops the pictures that do not fill a
    batch."""
    part = own_batch_slice()

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([config.seed, 2, epoch]).permutation(len(positions))

    def batch(step: int) -> Batch:
        epoch, place = divmod(step, epoch_steps)
        drawn = order(epoch)[place * config.batch : (place + 1) * config.batch]
        chosen = np.split(np.sort(positions[drawn]), part.count)[
            part.index
        ]  # sorted, so that neighbours are read together
        pictures = torch.from_numpy(pixels.at(chosen)).permute(0, 3, 1, 2).contiguous()
        return Batch(len(chosen), {"pictures": pictures}, lambda: pixels.ids_at(chosen))

    return batch


def _device(config: PretrainConfig) -> torch.device:
    return find_device(own_device(config.device))


def resolve(config: PretrainConfig, inputs: Inputs) -> PretrainConfig:
    return replace(config, backbone=full_backbone_name(config.backbone))


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
