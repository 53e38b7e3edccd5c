"""The demo: runs the whole pipeline on generated pictures or on the user's own. Nothing is downloaded.

Letters: H W pixels, 3 colour channels.

A generated picture shows one to three textured objects of several classes on a cluttered background, with an exact
mask. The class of an object decides its shape and texture; its colours, size and place are random.
"""

import csv
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from ...manifests.artifact.artifact import open_artifact
from ...manifests.errors import ConfigError
from ...manifests.files import atomic, sealed
from ...manifests.files.place import Place
from ...manifests.pictures.palette import encode_label_map
from . import read_shipped_recipe
from .chain import foresee_recipe
from .recipe import read_recipe

CLASSES = ("disc", "ring", "box", "diamond")
SIDE_PX = 128
PICTURES, ADDED = 40, 4
DONE, REFUSED = (0, 6), (3,)
NUM_FLOORS = 2  # the floors are the last lines of an evaluation
FOLDER, MARK = "maskmill-demo", "maskmill-demo.json"
TABLE, RECIPE, REPORT = "pictures.csv", "demo.toml", "report.html"
BROKEN = "broken"
_NO_BACKBONE_DOWNLOADED = ("--set", "extract.backbone=builtin", "--set", "extract.image_size=128")


@dataclass(frozen=True, slots=True)
class DemoCommand:
    """One command of the demo, as typed after `maskmill`, and its purpose."""

    why: str
    arguments: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)  # expected

    def __str__(self) -> str:
        return f"maskmill {shlex.join(self.arguments)}"


@dataclass(frozen=True, slots=True)
class StepGain:
    what: str
    pictures: int
    miou: float
    low: float
    high: float


def begin(work: Place) -> bool:
    """Marks a folder as the demo's; returns whether it was one before. Refuses a folder that holds anything else."""
    atomic.check_can_write(work)
    if work.exists(MARK):
        if work.exists(RECIPE) and work.read(RECIPE) != read_shipped_recipe("demo"):
            recipe = work.path(RECIPE)
            raise ConfigError(
                f"{recipe} differs from the demo's recipe; run your version with `maskmill run {shlex.quote(recipe)}`, "
                "or choose another --out for the demo"
            )
        return True
    stranger = next((name for name in work.names() if not name.endswith(atomic.TEMPORARY_SUFFIX)), None)
    if stranger is not None:
        raise ConfigError(
            f"{work} is not empty and not the folder of a demo (it holds {stranger}); choose another --out"
        )
    sealed.write(work, MARK, {})
    return False


def steps(work: Place) -> Iterator[DemoCommand]:
    """The commands, in order. Pictures are added between two of them; a demo that is stopped after that, or run again,
    uses the pictures as they are."""
    images, recipe, inside = work.path("images"), work.path(RECIPE), work.join("maskmill-work")
    index = ("index", "table", work.path(TABLE), "--out", images, "--unit-rows", "8")
    run, again = ("run", recipe), ("run", recipe, "--set", "refine.threshold=0.6")
    if not _has_grown(work):
        make_pictures(work, PICTURES)
        yield DemoCommand("list the pictures, with two worker processes", (*index, "--workers", "2"))
        atomic.write(work, f"pictures/{BROKEN}.jpg", b"not a picture")
        make_pictures(work, PICTURES + ADDED, broken=(BROKEN,))
        yield DemoCommand("pictures were added: a changed list is refused", index, REFUSED)
    yield DemoCommand("append them with --update; the broken picture is one failed row", (*index, "--update"))
    yield DemoCommand("show its progress, and what failed", ("status", images, "--failed"))
    if not work.exists(RECIPE):
        yield DemoCommand("copy a recipe, to edit it", ("recipe", "write", "demo", recipe))
    yield DemoCommand("show what a run would do", (*run, "--dry-run"))
    yield DemoCommand("run every stage, with the small built-in backbone", run, DONE)
    yield DemoCommand("another threshold: other labels, from the existing tokens and maps", again, DONE)
    made = artifacts(recipe, inside)
    yield DemoCommand("check every byte of the dataset against its digest", ("verify", made["manifest"]))
    for name, what in JUDGED.items():
        out = inside.path(f"worth-{name}")
        yield DemoCommand(f"score {what}", ("evaluate", "masks", made[name], "--resamples", "200", "--out", out), DONE)
    yield DemoCommand("write a report of everything", ("report", inside.uri, "--out", work.path(REPORT)), DONE)


def _has_grown(work: Place) -> bool:
    """Whether the pictures were added; the table is written last."""
    return work.exists(TABLE) and f"pictures/{BROKEN}.jpg".encode() in work.read(TABLE)


JUDGED = {
    "mask": "maps of the backbone alone",
    "enhance": "maps enhanced by a few masks",
    "manifest": "published labels",
}


def own_steps(work: Place, pictures: str) -> Iterator[DemoCommand]:
    """The commands for the user's own pictures, whose labels are the names of their folders."""
    inside = work.join("maskmill-work")
    run = ("run", "--images", pictures, "--work", inside.uri, "--update", *_NO_BACKBONE_DOWNLOADED)
    yield DemoCommand("run every stage, with the small built-in backbone", run, DONE)
    yield DemoCommand("write a report of everything", ("report", inside.uri, "--out", work.path(REPORT)), DONE)


def better(pictures: str) -> str:
    """The command for useful masks, with weights that timm downloads."""
    folder = shlex.quote(pictures) if pictures else "YOUR_PICTURES"
    return f"maskmill run --images {folder} --set extract.backbone=vit_small_patch8_224.dino"


def artifacts(recipe: str, work: Place) -> dict[str, str]:
    return {step.stage: step.at for step in foresee_recipe(read_recipe(recipe), work)}


def gains(work: Place) -> list[StepGain]:
    inside = work.join("maskmill-work")
    masks, floors = list[StepGain](), list[StepGain]()
    for name, what in JUDGED.items():
        results = json.loads(open_artifact(inside.join(f"worth-{name}"), "metrics").file("metrics.json"))["results"]
        masks.append(_gain(f"{name}: {what}", results[0], results[0]["pictures"]))
        floors = [_gain(f"floor: {line['name']}", line, line["pictures"]) for line in results[-NUM_FLOORS:]]
    trained = open_artifact(artifacts(work.path(RECIPE), inside)["train"], "checkpoint").summary.counts["judged"]
    students = [_gain(f"train: {line['name']}", line, trained["pictures"]) for line in trained["lines"][:2]]
    return [*masks, *floors, *students]


def _gain(what: str, result: Mapping[str, Any], pictures: int) -> StepGain:
    return StepGain(what, pictures, *(float(result["miou"][key]) for key in ("estimate", "low", "high")))


def make_pictures(at: Place, count: int, broken: tuple[str, ...] = (), seed: int = 0) -> None:
    """Writes `pictures`, `masks` and the table `pictures.csv`, with the broken pictures last."""
    table = StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["path", "labels", "mask"])
    for number in range(count):
        picture_HW3, label_HW = scene(np.random.default_rng([seed, number]))
        jpeg = BytesIO()
        Image.fromarray(picture_HW3).save(jpeg, "JPEG", quality=92)
        atomic.write(at, f"pictures/{number:04d}.jpg", jpeg.getvalue())
        atomic.write(at, f"masks/{number:04d}.png", encode_label_map(label_HW))
        shown = "|".join(CLASSES[index - 1] for index in np.unique(label_HW) if index)
        lines.writerow([f"pictures/{number:04d}.jpg", shown, f"masks/{number:04d}.png"])
    for name in broken:
        lines.writerow([f"pictures/{name}.jpg", CLASSES[0], ""])
    atomic.write(at, TABLE, table.getvalue().encode())


def scene(rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    picture_HW3 = _clutter(rng)
    label_HW = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for kind in rng.permutation(len(CLASSES))[: rng.integers(1, 4)]:
        inside_HW = _shape(rng, CLASSES[kind])
        picture_HW3[inside_HW] = _texture(rng, CLASSES[kind])[inside_HW]
        label_HW[inside_HW] = kind + 1  # later objects cover earlier ones
    return picture_HW3, label_HW


def _shape(rng: np.random.Generator, name: str) -> Bool[np.ndarray, "H W"]:
    radius = rng.uniform(0.14, 0.26) * SIDE_PX
    centre = rng.uniform(radius, SIDE_PX - radius, 2)
    away = np.abs(_PLACES - centre[:, None, None])
    distances: Mapping[str, Callable[[], np.ndarray]] = {
        "disc": lambda: np.hypot(*away),
        "ring": lambda: np.abs(np.hypot(*away) - 0.7 * radius) + 0.7 * radius,
        "box": lambda: away.max(0) / 0.85,
        "diamond": lambda: away.sum(0) / 1.2,
    }
    inside_HW: np.ndarray = distances[name]() < radius
    return inside_HW


_PLACES: Int64[np.ndarray, "2 H W"] = np.mgrid[:SIDE_PX, :SIDE_PX]


def _texture(rng: np.random.Generator, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Two colours, light and dark, in the pattern of the class."""
    rows, columns = _PLACES
    pattern_HW = {
        "disc": np.hypot(rows % 10 - 5, columns % 10 - 5) < 3,
        "ring": columns % 6 < 3,
        "box": (rows // 6 + columns // 6) % 2 == 0,
        "diamond": (rows + columns) % 8 < 3,
    }[name]
    light, dark = rng.integers(150, 256, 3), rng.integers(0, 90, 3)
    return np.where(pattern_HW[..., None], light, dark).astype(np.uint8)


def _clutter(rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """Blotches of one colour, and small things that are no object."""
    small = rng.normal(0, 20, (SIDE_PX // 8, SIDE_PX // 8, 1)).repeat(8, 0).repeat(8, 1)
    ground_HW3 = np.clip(rng.integers(70, 180, 3) + small, 0, 255).astype(np.uint8)
    for _ in range(14):
        row, column = rng.integers(0, SIDE_PX - 10, 2)
        ground_HW3[row : row + rng.integers(2, 9), column : column + rng.integers(2, 9)] = rng.integers(0, 255, 3)
    return ground_HW3
