"""Trains the backbone that comes with the package, from the pictures of caltech-128 below the folder that
MASKMILL_REFERENCE names, and writes its weights as the package carries them.

The recipe was chosen by the losses and by the classes of pictures of the same set, which it does not learn from. On a
CPU it is what some hours give; on a GPU `--device cuda` takes a longer one.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/train_builtin.py WORK [DEVICE]`
It goes on where it was stopped. What it wrote to stages/vision/builtin/ is then looked at with builtin_worth.py.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load, save

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS
from maskmill.stages.vision.builtin import BUILTIN, WEIGHTS_FILE

PICTURES_PX = 96
RECIPES = {
    "cpu": "--losses contrastive,reconstruction --global-size 48 --local-views 0 --align 0 --clusters 512 --hidden 512 "
    "--epochs 24 --warmup 1 --learning-rate 4e-3 --momentum 0.95",
    "cuda": "--losses cls,patch,reconstruction --avoidance sinkhorn --patches masked --global-size 64 --local-size 32 "
    "--local-views 6 --align 0 --clusters 2048 --hidden 1024 --epochs 400 --batch 256 --learning-rate 1e-3 "
    "--momentum 0.99 --autocast bfloat16",
}
LICENCE = "CC-BY-4.0"


def run(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def main(work: Path, device: str) -> None:
    pictures = Path(os.environ["MASKMILL_REFERENCE"]) / "data/caltech-128"
    run("index", "folder", pictures, "--out", work / "images")
    run("pixels", work / "images", "--image-size", PICTURES_PX, "--out", work / "pixels")
    recipe = RECIPES[device.partition(":")[0]].split()
    run(
        "pretrain",
        work / "pixels",
        "--backbone",
        BUILTIN,
        *recipe,
        "--device",
        device,
        "--licence",
        LICENCE,
        "--out",
        work / "backbone",
    )
    checkpoint = open_artifact(str(work / "backbone"), "checkpoint")
    state = {name: tensor.to(torch.float16) for name, tensor in load(checkpoint.file(WEIGHTS)).items()}
    WEIGHTS_FILE.write_bytes(save(state, {"licence": LICENCE, "family": "maskmill"}))
    print(f"{WEIGHTS_FILE}: {WEIGHTS_FILE.stat().st_size / 1e6:.1f} MB")
    lines = checkpoint.file("metrics.jsonl").splitlines()
    print(json.dumps(json.loads(lines[-1]), indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [*sys.argv[2:], "cpu"][0])
