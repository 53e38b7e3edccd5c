"""Masks against reading and verifying the keys that they are made of, at CST's 50×50 grid and at 28×28.

The tokens are random numbers of the shape of DINO's ViT-S: a map costs the same whatever it shows.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_mask.py`
"""

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.paired import ratios, show
from builders.configs import make_config
from builders.small_dataset import write_picture
from builders.small_runs import index
from builders.toy_tokens import TOKENS, TokensConfig
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.files import digests
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.stage import STAGE

PAIRS = 7
PICTURES = {28: 1024, 50: 320}  # of each grid so many that their keys are 0.6 GB
AT_ONCE = 32


def make_tokens(images: Path, out: Path, side: int) -> Tokens:
    config = TokensConfig(grid=(side, side), heads=6, width=384)
    run(TOKENS, config, {"images": str(images)}, str(out))
    return open_tokens(str(out))


def make_images(home: Path, count: int) -> Path:
    for number in range(count):
        write_picture(home / "pictures" / f"class{number % 8}" / f"{number}.png", number, (12, 10))
    index(home / "pictures", home / "images", RunOptions())
    return home / "images"


def read(tokens: Tokens) -> None:
    digests._checked.clear()  # or every pair but the first would believe what it has seen
    for start in range(0, tokens.artifact.plan.num_rows, AT_ONCE):
        tokens.at("keys", range(start, min(start + AT_ONCE, tokens.artifact.plan.num_rows)))


def measure(home: Path, side: int) -> None:
    images = make_images(home, PICTURES[side])
    tokens = make_tokens(images, home / "tokens", side)
    numbers = itertools.count()
    for supports in ("0", "8", "all"):
        config = make_config(MaskConfig, {"tokens": open_artifact(tokens.artifact.place)}, supports=supports)

        def mask(config: Any = config) -> None:
            digests._checked.clear()
            out = home / f"maps-{next(numbers)}"
            run(STAGE, config, {"tokens": str(home / "tokens"), "images": str(images)}, str(out))

        name = f"mask --method cst --supports {supports}, {PICTURES[side]} pictures of {side}×{side}"
        show(f"{name}, over reading and verifying the keys", ratios(mask, lambda: read(tokens), PAIRS))


def main() -> None:
    print(f"| load before | {os.getloadavg()[0]:.1f} |")
    for side in PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), side)
    print(f"| load after | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    print("| mask | measured |\n|---|---|")
    main()
