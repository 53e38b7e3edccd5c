"""A published dataset of two dozen small pictures, in which each class has a colour, and tokens of them, in seconds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders.configs import make_config
from builders.small_heads import CLASSES, OPTIONS, TOY_HEADS, HeadsConfig, labels_of, true_mask
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.stage import STAGE as MANIFEST
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.train.config import TrainConfig
from maskmill.stages.train.stage import STAGE as TRAIN

BACKBONE, SIZE = "test_vit.r160_in1k", (64, 64)  # 4 × 4 patches, 2 heads, 6 blocks
FIELDS = ("keys", "cls_query", "tokens:all", "support_tokens:all")
COUNT = 24
COLOURS = np.array([[40, 40, 40], [220, 30, 30], [30, 220, 30], [30, 30, 220]], np.uint8)


def write_pictures(home: Path, masked: int = COUNT, out: str = "images", count: int = COUNT, noise: int = 0) -> None:
    """An index of so many pictures; the first `masked` have ground truth."""
    lines = ["path,labels,mask"]
    folder = home / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size = (13 + number % 8, 14 + (5 * number) % 11)
        label_HW = true_mask(number, size)
        noise_HW3 = np.random.default_rng(noise + number).integers(0, 30, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3 + COLOURS[label_HW % 255]).save(folder / f"p{number:02d}.png")
        Image.fromarray(label_HW).save(folder / f"p{number:02d}-mask.png")
        mask = f"p{number:02d}-mask.png" if number < masked else ""
        lines.append(f"p{number:02d}.png,{'|'.join(labels_of(number))},{mask}")
    table = folder / f"{out}.csv"
    table.write_text("\n".join(lines) + "\n")
    config = IndexConfig(source=TableSource(file=str(table), classes=CLASSES))
    run(INDEX, config, {}, str(home / out), OPTIONS)


def write_void(home: Path, out: str = "void-truth") -> None:
    """An index of the same pictures, whose masks say nothing."""
    lines, folder = ["path,labels,mask"], home / "pictures"
    for number in range(COUNT):
        with Image.open(folder / f"p{number:02d}-mask.png") as mask:
            Image.fromarray(np.full_like(np.asarray(mask), 255)).save(folder / f"v{number:02d}-mask.png")
        lines.append(f"p{number:02d}.png,{'|'.join(labels_of(number))},v{number:02d}-mask.png")
    (folder / f"{out}.csv").write_text("\n".join(lines) + "\n")
    run(INDEX, IndexConfig(source=TableSource(file=str(folder / f"{out}.csv"), classes=CLASSES)), {}, str(home / out))


def publish(
    home: Path, out: str = "dataset", ground_truth: Sequence[str] = (), background: str = "rows", **maps: Any
) -> None:
    """Masks that are right to the patch, but for those that are the ground truth."""
    where = {"images": str(home / "images")}
    at = {name: str(home / f"{name} of {out}") for name in ("maps", "labels")}
    run(TOY_HEADS, HeadsConfig(**{"is_map_right": True, **maps}), where, at["maps"], OPTIONS)
    run(REFINE, make_config(RefineConfig, background=background), {"maps": at["maps"], **where}, at["labels"], OPTIONS)
    config = make_config(ManifestConfig, ground_truth=ground_truth)
    run(MANIFEST, config, {**at, **where}, str(home / out), OPTIONS)


def extract(home: Path, out: str = "tokens", images: str = "images", **asked: Any) -> None:
    wanted = {"weights": "random:0", "image_size": SIZE, "fit": "squash", "fields": FIELDS, **asked}
    run(
        EXTRACT,
        make_config(ExtractConfig, backbone=BACKBONE, **wanted),
        {"images": str(home / images)},
        str(home / out),
        OPTIONS,
    )


def write_home(home: Path) -> Path:
    """images, dataset and tokens."""
    write_pictures(home)
    publish(home)
    extract(home)
    return home


def train(home: Path, out: str, student: Any = "linear", **asked: Any) -> Artifact:
    """Inputs are those of their names in `home`, unless they are said to be others, or none."""
    given = {role: asked.pop(role, role) for role in ("dataset", "tokens", "images")}
    inputs = {role: str(home / name) for role, name in given.items() if name}
    seeing = asked.pop("seeing", None)
    config = make_config(TrainConfig, student=student, **{"steps": 6, **asked})
    run_whole(TRAIN, replace(config, seeing=seeing), inputs, str(home / out))
    return open_artifact(str(home / out), "checkpoint")
