"""What each way of avoiding collapse makes of clustering, alone and with masked image modelling: the same pictures,
steps and seed for every cell. Small on purpose: it shows whether clusters stay in use, and compares nothing with the
paper's numbers.

The pictures are those of caltech-128 below the folder that MASKMILL_REFERENCE names; accuracy is the nearest centroid
of five class tokens a class, on 1,024 pictures of the same set (their classes were not learned from). The first line is
the network as it began.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/collapse_table.py WORK [EPOCHS] [DEVICE]`
What is in WORK already is not done again.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from builders.configs import make_config
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS
from maskmill.stages.pretrain.config import PretrainConfig
from maskmill.stages.pretrain.stage import METRICS, STAGE

BACKBONE, CLUSTERS = "test_vit.r160_in1k", 512
MOMENTUM = 0.95  # of the teacher: the usual 0.996 hardly moves it in so few steps
AVOIDANCES = ("centering", "sinkhorn", "me-max", "sinkhorn+me-max")
CELLS: tuple[tuple[str, str, Any], ...] = (
    ("masked image modelling", "reconstruction", "centering"),
    ("contrastive", "contrastive", "centering"),
    *(("clustering", "cls,patch", avoidance) for avoidance in AVOIDANCES),
    *(("both", "cls,patch,reconstruction", avoidance) for avoidance in AVOIDANCES),
)


def last_line(work: Path, losses: str, avoidance: Any, epochs: int, device: str, **asked: Any) -> dict[str, Any]:
    """The metrics of a training's last step."""
    config = make_config(
        PretrainConfig,
        backbone=BACKBONE,
        losses=losses,
        avoidance=avoidance,
        global_size=64,
        local_size=32,
        local_views=2,
        clusters=CLUSTERS,
        hidden=256,
        epochs=epochs,
        align=0,
        learning_rate=2e-3,
        **{"momentum": MOMENTUM, **asked},
        device=device,
    )
    name = f"{losses}-{avoidance}-{epochs}-{'-'.join(map(str, asked.values()))}".replace(":", "_")
    inputs = {"pixels": str(work / "pixels"), "images": str(work / "images")}
    run_whole(STAGE, config, inputs, str(work / name))
    found: dict[str, Any] = json.loads(open_artifact(str(work / name)).file(METRICS).splitlines()[-1])
    return found


def show(name: str, avoidance: str, line: dict[str, Any]) -> None:
    cells = []
    for key, shown in (("entropy", "{:.2f}"), ("information", "{:.2f}"), ("active", "{}")):
        told = [shown.format(line[f"{of} {key}"]) for of in ("cls", "patch") if f"{of} {key}" in line]
        cells.append(" / ".join(told) or "–")
    print(f"| {name} | {avoidance} | {' | '.join(cells)} | {100 * line['nearest_centroid']:.1f} % |", flush=True)


def main(work: Path, epochs: int, device: str) -> None:
    if not (work / "pixels/artifact.json").exists():
        pictures = Path(os.environ["MASKMILL_REFERENCE"]) / "data/caltech-128"
        run(INDEX, IndexConfig(source=FolderSource(root=str(pictures))), {}, str(work / "images"))
        run(PIXELS, PixelsConfig(image_size=(96, 96)), {"images": str(work / "images")}, str(work / "pixels"))
    print(f"Of class tokens / patches; entropies in nats, of {math.log(CLUSTERS):.2f}; clusters of {CLUSTERS}.\n")
    print("| learned from | avoidance | entropy | information | active | nearest centroid |\n|---|---|---|---|---|---|")
    show("nothing", "–", last_line(work, "cls,patch", "centering", 2, device, momentum=1.0))
    for name, losses, avoidance in CELLS:
        told = avoidance if "cls" in losses else "–"
        show(name, told, last_line(work, losses, avoidance, epochs, device))


if __name__ == "__main__":
    given = dict(zip(("work", "epochs", "device"), sys.argv[1:], strict=False))
    main(Path(given["work"]), int(given.get("epochs", 5)), given.get("device", "cpu"))
