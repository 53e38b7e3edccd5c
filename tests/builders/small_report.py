"""Reports on small runs: a recipe of every stage over pictures whose names are as bad as names can be."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskmill.cli.main import main
from maskmill.pipeline.report.page import write_report

RECIPE = """
title = "Small <b>& bold</b> run"

[index]
layout = "folder"
root = "pictures"
masks = "masks"

[extract]
backbone = "test_vit.r160_in1k"
weights = "random:0"
image_size = 32

[mask]
supports = 1
per_head = true

[enhancer]
gt_per_class = 1

[enhance]

[refine]
refiner = "guided"
preset = "2,0.01"

[manifest]
min_score = "area>=0.05"

[evaluate]
resamples = 5
"""
# The classes are the first folders; </script> lies over two of them.
NAMES = [
    "cat/plain",
    "cat/ü 🐈 \"quoted\" 'single'",
    "cat/<script>document.title='owned'<",
    "<img src=x onerror=document.title='owned'>/one",
    "<img src=x onerror=document.title='owned'>/x<",
    "🐕 dog/a&amp;b",
    "🐕 dog/two",
    "cat/{{ 7 * 7 }}",
]


def write_pictures(home: Path) -> list[str]:
    """Flat colours, each its own, with a block as mask; one is no picture. Gives the ids."""
    ids = [f"{name}/script>" if name.endswith("<") else name for name in NAMES]
    for number, identifier in enumerate(ids):
        height, width = 40 + 8 * (number % 3), 64
        picture_HW3 = np.empty((height, width, 3), np.uint8)
        picture_HW3[:] = (20 + 25 * number, 220 - 20 * number, 60 + 40 * (number % 4))
        mask_HW = np.zeros((height, width), np.uint8)
        mask_HW[8 : 16 + 2 * number, 10 + number : 34] = 255
        picture_HW3[mask_HW > 0] //= 2
        for folder, pixels in (("pictures", picture_HW3), ("masks", mask_HW)):
            path = home / folder / f"{identifier}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (home / "pictures/cat/broken.jpg").write_bytes(b"no picture")
    return [*ids, "cat/broken"]


def run_recipe(home: Path, text: str = RECIPE) -> Path:
    """The work folder of a run over such pictures."""
    write_pictures(home)
    (home / "recipe.toml").write_text(text)
    assert main(["run", str(home / "recipe.toml"), "--work", str(home / "work"), "--max-bad", "0.5"]) in (0, 6)
    return home / "work"


def of_kind(work: Path, kind: str) -> Path:
    return sorted(work.glob(f"{kind}-*"))[0]


def reported(out: Path, *found: Path, count: int = 400, images_root: str = "") -> str:
    """The page."""
    write_report([str(each) for each in found], str(out), count, images_root)
    return out.read_text()


def pictures_in(page: str) -> dict[str, dict[str, Any]]:
    """What the page holds of each picture, by id."""
    found = re.findall(r'<script type="application/json" class="picture">(.*?)</script>', page)
    return {each["id"]: each for each in map(json.loads, found)}


def copied(work: Path, to: Path) -> Path:
    shutil.copytree(work.parent, to, dirs_exist_ok=True)
    return to / work.name
