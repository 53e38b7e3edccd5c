"""Masks against reading the keys that they are made of; the CRF against its own bare calls, and on two workers.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_mask.py`
"""

import itertools
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paired import ratios, seconds, show, write_photos
from maskmill.manifests import digests
from maskmill.manifests.artifact import Artifact, open_artifact
from maskmill.manifests.datasets import FolderSource
from maskmill.manifests.palette import decode_label_map
from maskmill.manifests.pictures import decode_picture
from maskmill.pipeline.job import RunOptions
from maskmill.pipeline.run import run
from maskmill.stages.extract.stage import STAGE as EXTRACT, extract_config
from maskmill.stages.index.stage import STAGE as INDEX, IndexConfig
from maskmill.stages.mask.stage import STAGE as MASK, mask_config
from maskmill.stages.refine.presets import find_preset
from maskmill.stages.refine.stage import STAGE as REFINE, refine_config

BACKBONE = "vit_small_patch16_224"  # whose keys are as wide as those of DINO's ViT-S/8
PRESET = "weaktr-cam-voc"


def tokens_of(pictures: Path, work: Path, size: int) -> Path:
    images, tokens = work / f"images-{size}", work / f"tokens-{size}"
    run(INDEX, IndexConfig(source=FolderSource(root=str(pictures))), {}, str(images))
    run(EXTRACT, extract_config(BACKBONE, "random:0", (size, size)), {"images": str(images)}, str(tokens))
    return tokens


def read_and_verify(tokens: Artifact) -> None:
    digests._checked.clear()
    for start in range(0, tokens.plan.num_rows, 32):
        tokens.read("keys", range(start, min(start + 32, tokens.plan.num_rows)))


def against_reading(tokens: Path, work: Path) -> None:
    opened = open_artifact(str(tokens))
    images, grid = str(opened.plan.inputs[0].place(opened.place)), opened.plan.facts["backbone"]["grid"]
    numbers = itertools.count()
    for supports in ("0", "8"):
        config = mask_config(opened, "cst", supports)

        def mask(config: Any = config) -> None:
            digests._checked.clear()
            out = work / f"maps-{grid[0]}-{next(numbers)}"
            run(MASK, config, {"tokens": str(tokens), "images": images}, str(out))

        name = f"mask cst, {opened.plan.num_rows} pictures of {grid[0]}×{grid[1]}, supports {supports}"
        show(f"{name}, over reading and verifying the keys", ratios(mask, lambda: read_and_verify(opened), 5))


def bare_crf(picture_HW3: np.ndarray, label_HW: np.ndarray) -> None:
    """As WeakTr calls pydensecrf."""
    densecrf: Any = import_module("pydensecrf.densecrf")
    unary_from_labels: Any = import_module("pydensecrf.utils").unary_from_labels
    preset = find_preset(PRESET)
    height, width = label_HW.shape
    model: Any = densecrf.DenseCRF2D(width, height, 2)
    model.setUnaryEnergy(unary_from_labels(label_HW, 2, gt_prob=preset.gt_prob, zero_unsure=False))
    model.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_compat)
    model.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=picture_HW3, compat=preset.bilateral_compat
    )
    np.argmax(model.inference(preset.iterations), axis=0)


def crf(pictures: Path, tokens: Path, work: Path) -> None:
    opened = open_artifact(str(tokens))
    images = str(opened.plan.inputs[0].place(opened.place))
    maps, plain = work / "crf-maps", work / "plain-labels"
    run(MASK, mask_config(opened, "cst", "0"), {"tokens": str(tokens), "images": images}, str(maps))
    inputs = {"maps": str(maps), "images": images}
    run(REFINE, refine_config("none"), inputs, str(plain))
    labels = open_artifact(str(plain))
    ids = labels.rows().column("id").to_pylist()
    root = Path(open_artifact(images).plan.facts["root"])
    uris = dict(zip(ids, open_artifact(images).rows().column("uri").to_pylist(), strict=True))
    cuts = [
        np.ascontiguousarray(decode_label_map(cell or b"") > 0).astype(np.int32)
        for cell in labels.cells("label", range(len(ids)))
    ]
    shown = [decode_picture((root / uris[identifier]).read_bytes())[0] for identifier in ids]
    numbers = itertools.count()

    def refined(workers: int = 0) -> None:
        out = work / f"crf-{next(numbers)}"
        run(REFINE, refine_config("crf", PRESET), inputs, str(out), RunOptions(unit_rows=8, workers=workers))

    def bare() -> None:
        for picture_HW3, cut_HW in zip(shown, cuts, strict=True):
            bare_crf(picture_HW3, cut_HW)

    show(f"refine crf, {len(ids)} pictures, over bare pydensecrf calls", ratios(refined, bare, 2))
    out, again = work / "crf-workers", RunOptions(unit_rows=8, workers=2)
    config = refine_config("crf", PRESET)
    whole = seconds(lambda: run(REFINE, config, inputs, str(out), again))
    start = seconds(lambda: run(REFINE, config, inputs, str(out), again))
    one = seconds(refined)
    print(f"| 2 workers over one process, start-up of {start:.1f} s apart | {one / (whole - start):.2f} |")


def main() -> None:
    reference = os.environ.get("MASKMILL_REFERENCE")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = write_photos(work / "pictures", 96)
        for size in (448, 800):
            against_reading(tokens_of(photos, work, size), work)
        natural = Path(reference) / "data/voc-mini/JPEGImages" if reference else photos
        (work / "natural").mkdir()
        crf(natural, tokens_of(natural, work / "natural", 224), work / "natural")


if __name__ == "__main__":
    print("| masks | measured |\n|---|---|")
    main()
