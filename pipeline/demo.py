"""Everything the package does, on pictures made on the spot: nothing is downloaded.

Letters: H W pixels, 3 colour channels.

A picture is one or two textured shapes on a cluttered ground; its class is the first shape's, its mask is exact.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ..manifests import atomic
from ..manifests.palette import encode_label_map
from ..manifests.place import Place

CLASSES = ("disc", "ring", "box")
SIDE_PX = 96


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the demo, as a user would type it after `maskmill`, and why."""

    why: str
    arguments: tuple[str, ...]
    exit_code: int = 0  # that it is to end with

    def __str__(self) -> str:
        return f"maskmill {shlex.join(self.arguments)}"


def make_pictures(at: Place, count: int, seed: int = 0, first: int = 0) -> None:
    """Writes `count` pictures under `pictures/CLASS` and their masks under `masks/CLASS`."""
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        name = CLASSES[number % len(CLASSES)]
        picture_HW3, mask_HW = _scene(rng, name)
        jpeg = BytesIO()
        Image.fromarray(picture_HW3).save(jpeg, "JPEG", quality=92)
        atomic.write(at, f"pictures/{name}/{number:04d}.jpg", jpeg.getvalue())
        atomic.write(at, f"masks/{name}/{number:04d}.png", encode_label_map(mask_HW.astype(np.uint8)))


def steps(work: Place) -> Iterator[Step]:
    """The commands, in order. Between some of them the pictures change, as they do in life."""
    pictures, masks, images = work.path("pictures"), work.path("masks"), work.path("images")
    index = ("index", "folder", pictures, "--masks", masks, "--out", images, "--unit-rows", "8")
    make_pictures(work, 24)
    yield Step("what it would make", ("plan", *index))
    yield Step("list the pictures, with two worker processes", (*index, "--workers", "2"))
    yield Step("again: every unit is found done", index)
    atomic.write(work, "pictures/disc/broken.jpg", b"not a picture")
    make_pictures(work, 3, first=24)
    yield Step("pictures were added: a changed list is refused", index, exit_code=3)
    yield Step("until it is told to append them; the broken one is one failed row", (*index, "--update"))
    yield Step("how far it is, and what failed", ("status", images, "--failed"))
    yield Step("every byte against its digest", ("verify", images))
    recipe = work.path("demo.toml")
    yield Step("a recipe that ships, to copy and edit", ("recipe", "write", "demo", recipe))
    yield Step("what a run of it would do", ("run", recipe, "--dry-run"))
    yield Step("every stage of it, and what its masks are worth: with random weights, little", ("run", recipe))
    other = ("run", recipe, "--set", "refine.threshold=0.55")
    yield Step("another threshold: other labels, of the tokens and maps that there are", other)


def _scene(rng: np.random.Generator, name: str) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    picture_HW3 = _texture(rng, scale=3)
    for _ in range(12):  # clutter
        row, column = rng.integers(0, SIDE_PX - 12, 2)
        picture_HW3[row : row + rng.integers(3, 12), column : column + rng.integers(3, 12)] = rng.integers(0, 255, 3)
    mask_HW = _shape(rng, name)
    picture_HW3[mask_HW] = _texture(rng, scale=1)[mask_HW]
    return picture_HW3, mask_HW


def _shape(rng: np.random.Generator, name: str) -> Bool[np.ndarray, "H W"]:
    radius = rng.uniform(0.2, 0.35) * SIDE_PX
    centre = rng.uniform(radius, SIDE_PX - radius, 2)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    away = np.stack([rows - centre[0], columns - centre[1]])
    if name == "box":
        return np.abs(away).max(0) < radius * 0.8
    distance = np.hypot(*away)
    return (distance < radius) & (distance > (radius * 0.5 if name == "ring" else -1))


def _texture(rng: np.random.Generator, scale: int) -> UInt8[np.ndarray, "H W 3"]:
    """Noise of one colour; larger scales give larger blotches."""
    small = rng.normal(0, 25, (-(-SIDE_PX // scale), -(-SIDE_PX // scale), 1))
    noise_HW1 = small.repeat(scale, 0).repeat(scale, 1)[:SIDE_PX, :SIDE_PX]
    return np.clip(rng.integers(60, 200, 3) + noise_HW1, 0, 255).astype(np.uint8)
