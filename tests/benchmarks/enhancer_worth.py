"""What the enhancer is worth on two small sets of real pictures: mIoU before and after, on pictures not seen.

Takes an hour on two cores. Run:
`MASKMILL_REFERENCE=… .venv/bin/python tests/benchmarks/enhancer_worth.py WORK [BACKBONE] [WEIGHTS] [SIZE]`
What WORK holds already is not made again. The second table is what loss and resolution were chosen by.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from builders.configs import make_config
from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.enhance.config import EnhancerConfig
from maskmill.stages.enhance.enhancer_fit import FIT
from maskmill.stages.enhance.lessons import LOSSES

REFERENCE = Path(os.environ["MASKMILL_REFERENCE"]) / "data"
INDEX = {
    "caltech-outlines": [
        *("folder", REFERENCE / "caltech-outlines" / "images", "--masks", REFERENCE / "caltech-outlines" / "masks")
    ],
    "coco-mini": ["coco", REFERENCE / "coco-mini" / "images", REFERENCE / "coco-mini" / "annotations/instances.json"],
}
BUDGETS: Mapping[str, Mapping[str, Any]] = {
    "1 a class": {"gt_per_class": 1},
    "5 a class": {"gt_per_class": 5},
    "10 %": {"gt_fraction": 0.1},
}
SEEDS = (0, 1, 2)
FINER = (2,)  # cells of a patch along each side, besides 1
TRIED = "5 a class"  # the budget of the second table


def command(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def made_maps(home: Path, name: str, extract: list[str]) -> None:
    command("index", *INDEX[name], "--out", home / "images")
    command("extract", home / "images", *extract, "--out", home / "tokens")
    command("mask", home / "tokens", "--supports", "8", "--per-head", "--out", home / "maps")


def worth(home: Path, config: EnhancerConfig, out: str) -> Mapping[str, Any]:
    inputs = {"maps": str(home / "maps"), "images": str(home / "images")}
    run_whole(FIT, config, inputs, str(home / out))
    return open_artifact(str(home / out), "checkpoint").summary.counts


def budget_lines(home: Path, name: str) -> Iterator[str]:
    for number, (budget, asked) in enumerate(BUDGETS.items()):
        for seed in SEEDS:
            found = worth(home, make_config(EnhancerConfig, **asked, seed=seed), f"enhancer-{number}-{seed}")
            cells = [shown(found["held_out"][key]) for key in ("before", "after", "difference")]
            seen = found["fitting"] + found["stopping"]
            yield f"| {name} | {budget} | {seed} | {seen} | {found['held_out']['pictures']} | {' | '.join(cells)} |"


def choice_lines(home: Path, name: str) -> Iterator[str]:
    asked = [make_config(EnhancerConfig, **BUDGETS[TRIED], seed=seed) for seed in SEEDS]
    own = asked[0].loss
    for loss, cells in [*((loss, 1) for loss in LOSSES), *((own, each) for each in FINER)]:
        chosen = [replace(config, loss=loss, cells=cells) for config in asked]
        found = [worth(home, each, f"choice-{loss}-{cells}-{each.seed}")["held_out"] for each in chosen]
        before, after = (mean(each[key]["estimate"] for each in found) for key in ("before", "after"))
        by = [each["difference"]["estimate"] for each in found]
        yield f"| {name} | {loss} | {cells} | {before:.3f} | {after:.3f} | {min(by):+.3f} to {max(by):+.3f} |"


def shown(found: Mapping[str, float]) -> str:
    return f"{found['estimate']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def study(work: Path, backbone: str, weights: str, size: str) -> None:
    extract = ["--backbone", backbone, "--weights", weights, "--image-size", size]
    for name in INDEX:
        made_maps(work / name, name, extract)
    budgets = [line for name in INDEX for line in budget_lines(work / name, name)]
    choices = [line for name in INDEX for line in choice_lines(work / name, name)]
    print(
        f"backbone {backbone}, weights {weights or 'its own'}, {size} px; cst, supports 8; mIoU on pictures not seen\n"
    )
    print("| set | masks | seed | seen | judged on | before | after | difference |\n|---|---|---|---|---|---|---|---|")
    print("\n".join(budgets))
    print(f"\n{TRIED}, seeds {', '.join(map(str, SEEDS))}\n")
    print("| set | loss | cells a patch side | before | after | difference |\n|---|---|---|---|---|---|")
    print("\n".join(choices))


if __name__ == "__main__":
    given = [*sys.argv[2:], *["builtin", "", "128"][len(sys.argv) - 2 :]]
    study(Path(sys.argv[1]), *given)
