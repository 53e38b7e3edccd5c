"""Method × refiner on three small sets of real pictures, of a real ViT-S/14 and of the built-in backbone.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/real_backbone.py WORK [--sets …]
[--backbones …] [--methods …] [--refined …] [--refiners …]`

The weights of the ViT-S/14 are made in WORK/weights (real_weights.py), or given with --weights. It sees pictures at 392
px, squashed; the built-in sees them as `extract` shows them by default. masks_worth.py says what the columns are, and
holds the methods and refiners: a new one is an entry there.

What WORK holds already is not made again: WORK/BACKBONE/SET/images, tokens, and what is made of them. Artifacts of an
earlier run may be copied or linked there as images and tokens before the start, if `extract` was given the fields and
options below; their cost is then not known.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import real_weights
from benchmarks.masks_worth import FIELDS, INDEX, METHODS, REFINERS, Study, print_table


@dataclass(frozen=True)
class Backbone:
    title: str
    tier: str  # what it learned from: figures of two tiers are not compared
    extract: Sequence[str]
    needs_weights: bool = False


BACKBONES = {
    "vit-small-14": Backbone(
        "ViT-S/14, 392 px, squashed",
        "trained further on saliency: not DINOv2, and its masks are not label-free",
        [
            *("--backbone", real_weights.BACKBONE, "--image-size", "392", "--fit", "squash"),
            *("--fields", f"{FIELDS},tokens:10+last"),
        ],
        needs_weights=True,
    ),
    "builtin": Backbone(
        "built-in backbone, as `extract` runs it by default",
        "distilled from that ViT-S/14 on other pictures of Caltech's classes, so that caltech-outlines flatters it",
        ["--backbone", "builtin", "--fields", f"{FIELDS},tokens:last"],
    ),
}
CHOICES: Mapping[
    str, Mapping[str, object]
] = {  # option → names; --refined are the methods whose maps go through every refiner
    "backbones": BACKBONES,
    "sets": INDEX,
    "methods": METHODS,
    "refined": METHODS,
    "refiners": REFINERS,
}


def extract_options(backbone: Backbone, find_weights: Callable[[], Path]) -> Sequence[str]:
    return [*backbone.extract, *(["--weights", str(find_weights())] if backbone.needs_weights else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description="Method × refiner of a real ViT-S/14 and of the built-in backbone.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path, help="of the ViT-S/14; made in WORK if it is not given")
    for name, known in CHOICES.items():
        parser.add_argument(
            f"--{name}", nargs="+", choices=known, default=list(known), metavar="NAME", help=f"of {'; '.join(known)}"
        )
    asked = parser.parse_args()
    for name in asked.backbones:
        backbone = BACKBONES[name]
        extract = extract_options(backbone, lambda: asked.weights or real_weights.build_weights(asked.work / "weights"))
        print(f"\n{backbone.title}\n\nTier: {backbone.tier}.\n")
        print_table(Study(asked.work / name, extract, asked.sets, asked.methods, asked.refiners, asked.refined))


if __name__ == "__main__":
    main()
