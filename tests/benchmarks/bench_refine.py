"""The CRF as a stage against bare pydensecrf calls on the same unaries, on two workers, label maps without it, and the
refiners side by side: seconds and memory a picture.

Natural pictures are those of voc-mini where MASKMILL_REFERENCE names the reference data, and smooth ones otherwise; how
long a CRF takes depends on its picture. Soft maps come from random weights: how long it takes does not depend on them.

Memory is the peak of a process of its own over what it had before, soft maps and their scores included, for pictures
of one class; the CRF is not tried on the large one, where it takes minutes.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_refine.py`
"""

import itertools
import os
import resource
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paired import ratios, seconds, show, write_photos
from builders.configs import make_config
from builders.single_refinement import refine_picture
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.stage import STAGE as MASK
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.presets import REFINERS, Refiner, find_crf_preset
from maskmill.stages.refine.refiners import refinement_of
from maskmill.stages.refine.stage import STAGE

PAIRS = 3  # of some 30 s each
PRESET = "weaktr-cam-voc"
UNIT = RunOptions(unit_rows=8)


def make_maps(pictures: Path, home: Path) -> Artifact:
    """Of every picture one map, without class."""
    images, tokens, maps = (str(home / name) for name in ("images", "tokens", "maps"))
    run(INDEX, IndexConfig(source=FolderSource(root=str(pictures))), {}, images)
    config = make_config(ExtractConfig, backbone="test_vit.r160_in1k", weights="random:0", image_size=(448, 448))
    run(EXTRACT, config, {"images": images}, tokens)
    run(
        MASK,
        make_config(MaskConfig, {"tokens": open_artifact(tokens)}, supports="0"),
        {"tokens": tokens, "images": images},
        maps,
    )
    return open_artifact(maps)


def refining(home: Path, refiner: Any, preset: str = "") -> Callable[..., Path]:
    """A function that refines into a new directory each time."""
    numbers, config = itertools.count(), make_config(RefineConfig, refiner=refiner, preset=preset)
    inputs = {"maps": str(home / "maps"), "images": str(home / "images")}

    def refine(workers: int = 0) -> Path:
        out = home / f"{refiner}-{next(numbers)}"
        run(STAGE, config, inputs, str(out), RunOptions(unit_rows=UNIT.unit_rows, workers=workers))
        return out

    return refine


def bare_calls(home: Path, plain: Path) -> Callable[[], None]:
    """The same label maps and decoded pictures, through pydensecrf as WeakTr calls it."""
    labels, images = open_artifact(str(plain)), open_artifact(str(home / "images"))
    cells = labels.cells("label", range(labels.plan.num_rows))
    cut_HWs = [(decode_label_map(cell or b"") > 0).astype(np.int32) for cell in cells]
    root = Path(images.plan.facts["root"])
    pictures = [decode_picture((root / uri).read_bytes())[0] for uri in images.rows(["uri"])["uri"].to_pylist()]

    def call() -> None:
        for picture_HW3, cut_HW in zip(pictures, cut_HWs, strict=True):
            bare_crf(picture_HW3, cut_HW)

    return call


def bare_crf(picture_HW3: np.ndarray, cut_HW: np.ndarray) -> np.ndarray:
    densecrf: Any = import_module("pydensecrf.densecrf")
    unary_from_labels: Any = import_module("pydensecrf.utils").unary_from_labels
    preset = find_crf_preset(PRESET)
    model = densecrf.DenseCRF2D(cut_HW.shape[1], cut_HW.shape[0], 2)
    model.setUnaryEnergy(unary_from_labels(cut_HW, 2, gt_prob=preset.gt_prob, zero_unsure=False))
    model.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_compat)
    model.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=picture_HW3, compat=preset.bilateral_compat
    )
    return np.argmax(model.inference(preset.iterations), axis=0)


def workers(refine: Callable[..., Path], plain: Callable[..., Path]) -> None:
    """Start-up is what two workers take for the same label maps without CRF, which themselves take a moment."""
    start, one, both = [], [], []
    for _ in range(PAIRS):
        start.append(seconds(partial(plain, 2)) - seconds(plain) / 2)
        one.append(seconds(refine))
        both.append(seconds(partial(refine, 2)))
    show("start-up of 2 workers", start, " s")
    show("refine crf, one process", one, " s")
    show("refine crf, 2 workers with their start-up", both, " s")
    gains = [a / (b - c) for a, b, c in zip(one, both, start, strict=True)]
    show("one process over 2 workers, start-up apart", gains)


def beside_each_other(refiners: Mapping[str, Callable[..., Path]], count: int) -> None:
    """Each after the other, turn by turn."""
    taken: dict[str, list[float]] = {name: [] for name in refiners}
    for _ in range(PAIRS):
        for name, refine in refiners.items():
            taken[name].append(1000 * seconds(refine) / count)
    for name, each in taken.items():
        show(f"refine {name}, each of {count} pictures", each, " ms")


def peak_mb(refiner: Refiner, height: int, width: int) -> tuple[float, float]:
    """Of one picture: MB over what the process had, and seconds."""
    refinement = refinement_of(make_config(RefineConfig, refiner=refiner))
    rng = np.random.default_rng(0)
    refine = partial(refine_picture, thresholds_K=np.full(1, 0.5), row_classes=[1], refinement=refinement)
    refine(rng.integers(0, 256, (40, 40, 3), np.uint8), rng.random((1, 40, 40), np.float32))
    coarse_HW3 = rng.integers(0, 256, (-(-height // 50), -(-width // 50), 3), np.uint8)
    picture_HW3 = coarse_HW3.repeat(50, 0).repeat(50, 1)[:height, :width].copy()
    map_HW = rng.random((-(-height // 100), -(-width // 100)), np.float32).repeat(100, 0).repeat(100, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = seconds(lambda: refine(picture_HW3, map_HW[None, :height, :width].copy()))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, took


def memory() -> None:
    tried: list[tuple[Refiner, int, int]] = [
        *((refiner, 375, 500) for refiner in REFINERS),
        *((refiner, 3000, 4000) for refiner in REFINERS if refiner != "crf"),
    ]
    for refiner, height, width in tried:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            peak, took = alone.submit(peak_mb, refiner, height, width).result()
        print(f"| refine {refiner}, {width}×{height}, peak memory; once | {peak:.0f} MB; {took:.2f} s |", flush=True)


def main() -> None:
    reference = os.environ.get("MASKMILL_REFERENCE")
    print(f"| load before | {os.getloadavg()[0]:.1f} |")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        photos = Path(reference) / "data/voc-mini/JPEGImages" if reference else write_photos(home / "pictures", 72)
        count = make_maps(photos, home).plan.num_rows
        plain, refine = refining(home, "none"), refining(home, "crf", PRESET)
        each = [1000 * seconds(plain) / count for _ in range(5)]
        show(f"refine none, {count} pictures, each", each, " ms")
        bare = bare_calls(home, plain())
        show(f"refine crf, {count} pictures, over bare pydensecrf calls", ratios(refine, bare, PAIRS))
        workers(refine, plain)
        others = {refiner: refining(home, refiner) for refiner in ("guided", "par")}
        beside_each_other({"none": plain, **others, "crf": refine}, count)
    memory()
    print(f"| load after | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    print("| refine | measured |\n|---|---|")
    main()
