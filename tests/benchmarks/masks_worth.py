"""What masks of each kind are worth on three small sets of real pictures, with intervals and floors.

Takes an hour on two cores, most of it the CRF. Run:
`MASKMILL_REFERENCE=… .venv/bin/python tests/benchmarks/masks_worth.py WORK [BACKBONE] [WEIGHTS] [SIZE]`
What WORK holds already is not made again.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact import open_artifact

REFERENCE = Path(os.environ["MASKMILL_REFERENCE"]) / "data"
INDEX = {
    "voc-mini": [
        "voc",
        REFERENCE / "voc-mini",
        "--split",
        "train",
        "--masks",
        "SegmentationClass",
        "--labels-from",
        "masks",
    ],
    "coco-mini": ["coco", REFERENCE / "coco-mini" / "images", REFERENCE / "coco-mini" / "annotations/instances.json"],
    "caltech-outlines": [
        *("folder", REFERENCE / "caltech-outlines" / "images", "--masks", REFERENCE / "caltech-outlines" / "masks")
    ],
}
COARSE = ("caltech-outlines",)  # polygons by hand: no boundary F there
REFINERS = {
    "none": ["--refiner", "none"],
    "crf (weaktr-cam-voc)": ["--refiner", "crf", "--preset", "weaktr-cam-voc"],
    "par (toco)": ["--refiner", "par", "--preset", "toco"],
    "guided (15,0.001)": ["--refiner", "guided", "--preset", "15,0.001"],
}


def run(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def judged(work: Path, name: str, labels: Path) -> dict[str, object]:
    out = labels.with_name(f"{labels.name}-metrics")
    boundary = "--no-boundary" if name in COARSE else "--boundary"
    run("evaluate", "masks", labels, boundary, "--out", out)
    metrics: dict[str, object] = json.loads(open_artifact(str(out), "metrics").file("metrics.json"))
    return metrics


def lines(work: Path, name: str, extract: list[str]) -> Iterator[str]:
    home = work / name
    run("index", *INDEX[name], "--out", home / "images")
    run("extract", home / "images", *extract, "--out", home / "tokens")
    metrics: dict[str, object] = {}
    for supports in ("0", "1", "8", "all"):
        maps = home / f"maps-{supports}"
        run("mask", home / "tokens", "--supports", supports, "--out", maps)
        for number, (refiner, options) in enumerate(REFINERS.items()):
            if refiner != "none" and supports not in ("0", "8"):
                continue
            labels = home / f"labels-{supports}-{number}"
            run("refine", maps, *options, "--workers", "2" if number else "0", "--out", labels)
            metrics = judged(work, name, labels)
            yield shown(name, f"cst, supports {supports}, {refiner}", metrics["results"][0])  # type: ignore[index]
    for floor in metrics["results"][-2:]:  # type: ignore[index]
        yield shown(name, floor["name"], floor)


def shown(name: str, what: str, line: dict[str, dict[str, float]]) -> str:
    found = [line.get(key) for key in ("miou", "miou_foreground", "boundary_f")]
    cells = [f"{each['estimate']:.3f} ({each['low']:.3f}–{each['high']:.3f})" if each else "–" for each in found]
    return f"| {name} | {what} | {' | '.join(cells)} |"


def study(work: Path, backbone: str, weights: str, size: str) -> None:
    extract = ["--backbone", backbone, "--weights", weights, "--image-size", size]
    rows = [row for name in INDEX for row in lines(work, name, extract)]
    print(f"backbone {backbone}, weights {weights or 'timm'}, {size} px")
    print("| set | masks | mIoU | mIoU without background | boundary F |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    given = [*sys.argv[2:], *["vit_small_patch16_224", "random:0", "224"][len(sys.argv) - 2 :]]
    study(Path(sys.argv[1]), *given)
