"""Extraction against a bare loop of the same model, against one file a picture, and how fast its tokens are read.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_extract.py`
"""

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.paired import ratios, seconds, show, write_photos
from builders.configs import make_config
from maskmill.manifests.artifact.quantized import dequantize, quantize
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.files import digests
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.threads import num_cores
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE, prepare
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.vision.computing import Extractor
from maskmill.stages.vision.fitting import as_input, fit_picture

SMALL, TINY = "vit_small_patch8_224", "test_vit.r160_in1k"


def indexed(root: Path, out: Path) -> Path:
    run(INDEX, IndexConfig(source=FolderSource(root=str(root))), {}, str(out))
    return out


def extracting(images: Path, work: Path, backbone: str, size: int) -> tuple[Callable[[], object], Extractor]:
    """A run into a new directory each time, with the model loaded once: loading it is not what is measured."""
    config = make_config(ExtractConfig, backbone=backbone, weights="random:0", image_size=(size, size))
    extractor = prepare(config, {})
    stage = replace(STAGE, prepare=lambda config, inputs: extractor)
    numbers = itertools.count()
    return lambda: run(stage, config, {"images": str(images)}, str(work / f"{backbone}-{next(numbers)}")), extractor


def bare(pixels: np.ndarray, extractor: Extractor, batch: int) -> Callable[[], object]:
    """The same model and threads over pictures that are decoded and fitted."""
    facts = extractor.backbone.facts
    model: Any = extractor.backbone.model

    def loop() -> None:
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                model.forward_features(as_input(torch.from_numpy(pixels[start : start + batch]), facts.mean, facts.std))

    return loop


def one_by_one(paths: list[Path], extractor: Extractor, size: int, out: Path) -> Callable[[], object]:
    """The field's way: a picture at a time, and a file for each."""
    facts = extractor.backbone.facts

    def loop() -> None:
        for number, path in enumerate(paths):
            pixels, _ = fit_picture(decode_picture(path.read_bytes())[0], size, size, "squash", facts.mean)
            found = extractor.launch(pixels[None], {"keys": [facts.depth - 1], "cls_query": [facts.depth - 1]})
            torch.save(found.fields, out / f"{number}.pt")

    return loop


def against_loops(work: Path, backbone: str, size: int, count: int, pairs: int) -> Path:
    pictures = write_photos(work / f"{backbone}-pictures", count)
    paths = sorted(pictures.rglob("*.jpg"))
    extract, extractor = extracting(indexed(pictures, work / f"{backbone}-images"), work, backbone, size)
    mean = extractor.backbone.facts.mean
    pixels = np.stack([fit_picture(decode_picture(p.read_bytes())[0], size, size, "squash", mean)[0] for p in paths])
    same = bare(pixels, extractor, extractor.micro_batch)
    show(f"{backbone} at {size}: images/s over a bare loop of its batch", ratios(same, extract, pairs))
    show("… over a bare loop in batches of 16", ratios(bare(pixels, extractor, 16), extract, pairs))
    loop = one_by_one(paths, extractor, size, work)
    show("… over batch 1 and one torch.save a picture, decoding included", ratios(loop, extract, pairs))
    return work / f"{backbone}-1"


def reading(tokens: Path, work: Path) -> None:
    opened = open_tokens(tokens)
    found, unit = opened.artifact, opened.artifact.plan.layout(opened.artifact.plan.groups[0]).unit(0)
    shard = tokens / found.plan.fields["keys"].shard(0)
    rows, ids = range(unit.stop), opened.rows.column("id").to_pylist()

    def raw() -> None:
        hashlib.sha256(shard.read_bytes()).hexdigest()

    def first() -> None:
        digests._checked.clear()
        found.read("keys", rows)

    later = lambda: found.read("keys", rows)  # noqa: E731
    chosen = np.random.default_rng(0).integers(0, unit.stop, 50).tolist()
    for place in range(unit.stop):
        np.save(work / f"{place}.npy", found.read("keys", [place])[0])
    loose = lambda: [np.load(work / f"{place}.npy") for place in chosen]  # noqa: E731
    one = lambda: [opened.read("keys", ids[place]) for place in chosen]  # noqa: E731
    size_mb = shard.stat().st_size / 1e6
    show(f"reading and hashing a shard of {size_mb:.0f} MB raw, over its first read", ratios(raw, first, 9))
    show("… over later reads", ratios(raw, later, 9))
    show("one np.load a picture, over its keys read by id", ratios(loose, one, 9))
    arrays = sum(field.bytes_per_row for field in found.plan.fields.values()) * found.plan.num_rows
    files = [path for path in tokens.rglob("*") if path.is_file() and "log" not in path.parts]
    stored = sum(path.stat().st_size for path in files)
    print(f"| files of {found.plan.num_rows} pictures; bytes over the arrays' | {len(files)}; {stored / arrays:.4f} |")


def on_workers(few: Path, many: Path, work: Path, backbone: str, size: int) -> None:
    """By what more pictures take: starting workers, loading torch and the model in each are in both runs."""
    config = make_config(ExtractConfig, backbone=backbone, weights="random:0", image_size=(size, size))
    numbers = itertools.count()

    def timed(images: Path, workers: int) -> float:
        out = str(work / f"workers-{next(numbers)}")
        options = RunOptions(workers=workers, unit_rows=24)
        return seconds(lambda: run(STAGE, config, {"images": str(images)}, out, options))

    timed(few, 0)
    gains, starts = [], []
    for _ in range(3):
        inline, both = (timed(many, 0), timed(few, 0)), (timed(many, 2), timed(few, 2))
        gains.append((inline[0] - inline[1]) / (both[0] - both[1]))
        starts.append(both[1] - inline[1])
    threads = max(1, num_cores() // 2)
    show(f"{backbone} at {size}: this process over 2 workers with {threads} thread each, start-up apart", gains)
    show("… start-up of the workers: processes, torch, the model", starts, " s")


def cosine_errors(images: Path, backbone: str, size: int) -> None:
    """Of stored keys against float32, over tokens of real pictures where there are any."""
    config = make_config(ExtractConfig, backbone=backbone, weights="random:0", image_size=(size, size), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        run(STAGE, config, {"images": str(images)}, folder)
        tokens = open_tokens(folder)
        keys = tokens.at("keys", range(tokens.rows.num_rows)).reshape(-1, tokens.backbone["key_width"])
    for name, stored in (
        ("float16", keys.astype(np.float16).astype(np.float32)),
        ("int8", dequantize(*quantize(keys))),
    ):
        cosine = (keys * stored).sum(-1) / np.linalg.norm(keys, axis=-1) / np.linalg.norm(stored, axis=-1)
        error = np.clip(1 - cosine.astype(np.float64), 0, None)
        print(f"| cosine error of keys as {name}, largest and mean | {error.max():.1e}, {error.mean():.1e} |")


def main() -> None:
    reference = os.environ.get("MASKMILL_REFERENCE")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        against_loops(work, TINY, 160, 300, 5)
        reading(against_loops(work, SMALL, 224, 16, 5), work)
        few, many = (indexed(write_photos(work / f"{count}", count), work / f"{count}-images") for count in (48, 240))
        on_workers(few, many, work, SMALL, 112)
        real = Path(reference) / "data/voc-mini/JPEGImages" if reference else work / f"{SMALL}-pictures"
        cosine_errors(indexed(real, work / "real"), SMALL, 112)


if __name__ == "__main__":
    print("| extract | measured |\n|---|---|")
    main()
