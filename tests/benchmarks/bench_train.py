"""A training step from stored tokens against the same step with the backbone in the loop, as the original runs.

ViT-S/8 with random weights at 400 pixels, batches of four pairs, pseudo-masks of stored keys. Steps of the two follow
one another and are paired. Of the cached training it also tells the share of its time that it waited for batches after
the first epoch, by the loop's own count, and how many bytes a step reads; from these the bytes a second below which the
backbone would be faster. What a store gives when its pages are not in memory is the disk's.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_train.py [DEVICE] [STEPS] [PICTURES] [PIXELS]`
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.paired import seconds, show, write_photos
from builders.configs import make_config
from maskmill.cli.answers import size
from maskmill.manifests.artifact import shards
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.files.place import place
from maskmill.pipeline.running.run import run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.learning import loop
from maskmill.stages.learning.loop import Course
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.stage import STAGE as MANIFEST
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.stage import STAGE as MASK
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.students.backbone_config import BackboneConfig
from maskmill.stages.students.feature_names import PAIR_FIELDS
from maskmill.stages.students.features import Cached, Features, Online, pictures_of_images, resolve_backbone
from maskmill.stages.train.config import TrainConfig
from maskmill.stages.train.cst import make_learner, make_lesson
from maskmill.stages.train.given import TrainingData
from maskmill.stages.train.pool import draw_pools
from maskmill.stages.train.published import PublishedDataset
from maskmill.stages.train.selection import Kept
from maskmill.stages.train.targets import target_builder

BACKBONE, WEIGHTS, BATCH, WARM_UP = "vit_small_patch8_224", "random:0", 4, 1
FIELDS = ("keys", "cls_query", "tokens:all", "support_tokens:all")


def make(home: Path, pictures: int, pixels: int, device: str) -> None:
    write_photos(home / "pictures", pictures)
    images = {"images": str(home / "images")}
    run(INDEX, IndexConfig(source=FolderSource(root=str(home / "pictures"))), {}, images["images"])
    extracting = make_config(
        ExtractConfig,
        backbone=BACKBONE,
        weights=WEIGHTS,
        image_size=(pixels, pixels),
        fit="squash",
        fields=FIELDS,
        device=device,
    )
    run(EXTRACT, extracting, images, str(home / "tokens"))
    tokens = {"tokens": str(home / "tokens"), **images}
    run(
        MASK,
        make_config(MaskConfig, {"tokens": open_artifact(tokens["tokens"])}, supports="0"),
        tokens,
        str(home / "maps"),
    )
    maps = {"maps": str(home / "maps"), **images}
    run(REFINE, make_config(RefineConfig), maps, str(home / "labels"))
    run(MANIFEST, make_config(ManifestConfig), {"labels": str(home / "labels"), **maps}, str(home / "dataset"))


def lesson_of(home: Path, features: Features, steps: int, device: str) -> Any:
    config = make_config(TrainConfig, student="cst", supervision="pseudo", steps=steps, batch=BATCH, device=device)
    dataset = open_artifact(str(home / "dataset"))
    published = PublishedDataset(dataset)
    given = TrainingData(dataset, published, features, None)
    learner = make_learner(features.sight.channels, 0).to(device)
    supervise = target_builder("pseudo", published, None, features.sight)
    pool = draw_pools(config, published, None).pool
    return make_lesson(config, given, pool, learner, Kept(learner), supervise, lambda step: {})


def step_of(lesson: Any, step: int) -> None:
    lesson.optimiser.zero_grad(set_to_none=True)
    losses = lesson.losses(step, lesson.batch(step))
    losses.total.backward()
    lesson.optimiser.step()
    losses.total.item()


def compare(home: Path, steps: int, pixels: int, device: str) -> None:
    cached = Cached(open_tokens(home / "tokens"), PAIR_FIELDS)
    images = pictures_of_images(open_artifact(str(home / "images")))
    online = Online(
        resolve_backbone(BackboneConfig(backbone=BACKBONE, weights=WEIGHTS, image_size=(pixels, pixels)), device),
        PAIR_FIELDS,
        images,
    )
    lessons = [lesson_of(home, features, steps, device) for features in (cached, online)]
    found = [[seconds(partial(step_of, each, at)) for each in lessons] for at in range(steps)][WARM_UP:]
    name = f"train --student cst at {pixels} on {device}, batches of {BATCH}"
    show(f"{name}: a step with the backbone over one from stored tokens", [o / c for c, o in found])
    show("… from stored tokens", [c for c, _ in found], " s")
    show("… with the backbone", [o for _, o in found], " s")
    learning = [seconds(partial(_without_reading, lessons[0], at)) for at in range(2)]
    show("… what bounds it: learner and its gradients alone", learning, " s")
    saved_s = statistics.median(o - c for c, o in found)
    read = bytes_of_a_step(lessons[0])
    print(f"| … bytes read in a step | {size(read)} |")
    print(f"| … break-even: the cache is faster above | {size(read / saved_s)}/s |" if saved_s > 0 else "| … none | |")


def _without_reading(lesson: Any, at: int, held: dict[int, Any] = {}) -> None:  # noqa: B006 - read once
    batch = held.setdefault(0, lesson.batch(0))
    lesson.optimiser.zero_grad(set_to_none=True)
    lesson.losses(at, batch).total.backward()


def bytes_of_a_step(lesson: Any) -> int:
    total = 0
    read = shards._range

    def counted(place: Any, name: str, start: int, stop: int) -> Any:
        nonlocal total
        total += stop - start
        return read(place, name, start, stop)

    with mock.patch.object(shards, "_range", counted):
        lesson.batch(1)
    return total


def waiting(home: Path, steps: int, device: str) -> None:
    """As the loop runs it, each batch made while the one before is learned from."""
    lesson = lesson_of(home, Cached(open_tokens(home / "tokens"), PAIR_FIELDS), steps, device)
    epoch = max(1, steps // 2)
    waited, began = list[float](), list[float]()
    count = loop._Rates.count

    def counted(self: Any, step: int, rows: int, line: str) -> None:
        waited.append(self.waited_s)
        self.waited_s = 0.0
        began.append(time.monotonic())
        count(self, step, rows, line)

    with mock.patch.object(loop._Rates, "count", counted):
        loop.train(lesson, Course(steps=steps, steps_per_epoch=epoch, seed=0), Underway(place(str(home / "none"))))
    share = sum(waited[epoch:]) / (began[-1] - began[epoch - 1])
    print(f"| … waiting for batches after the first epoch | {share:.1%} |")


def main(device: str = "cpu", steps: str = "8", pictures: str = "48", pixels: str = "400") -> None:
    print(f"| load before | {os.getloadavg()[0]:.1f} |")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), int(pictures), int(pixels), device)
        compare(Path(folder), int(steps), int(pixels), device)
        waiting(Path(folder), int(steps), device)
    print(f"| load after | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    print("| train | measured |\n|---|---|")
    main(*sys.argv[1:])
