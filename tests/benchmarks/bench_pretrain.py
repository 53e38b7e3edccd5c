"""Pretraining against a bare forward and backward of the same networks on ready views.

The bare side has student, teacher, heads and losses, and the same views of one batch at every step; it reads, crops,
colours and masks nothing, and updates no weights.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_pretrain.py [DEVICE]`
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from benchmarks.paired import ratios, show, write_photos
from maskmill.manifests.datasets import FolderSource
from maskmill.manifests.pixels import open_pixels
from maskmill.pipeline.run import run
from maskmill.pipeline.whole import run_whole
from maskmill.stages.index.stage import STAGE as INDEX, IndexConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS, PixelsConfig
from maskmill.stages.pretrain import teaching
from maskmill.stages.pretrain.config import PretrainConfig, pretrain_config
from maskmill.stages.pretrain.draws import generator_at
from maskmill.stages.pretrain.masking import corrupt
from maskmill.stages.pretrain.stage import STAGE, made_teaching
from maskmill.stages.pretrain.teaching import NUM_GLOBAL
from maskmill.stages.pretrain.views import draw_views
from maskmill.stages.vision.backbone import backbone_facts

BATCH, STEPS, PAIRS = 32, 8, 3


def bare(config: PretrainConfig, work: Path) -> Callable[[], None]:
    facts = backbone_facts(config.backbone, config.global_size, config.global_size)
    taught = made_teaching(config, facts.mean, facts.std, STEPS)
    pictures = torch.from_numpy(open_pixels(work / "pixels").at(range(BATCH))).permute(0, 3, 1, 2).to(config.device)
    generator = generator_at(0, 0)
    views = draw_views(pictures, taught.strengths, facts.mean, facts.std, generator)
    corrupted = corrupt(torch.cat(views[:NUM_GLOBAL]), taught.masking, taught.student.patch_px, generator)

    def loop() -> None:
        with (
            mock.patch.object(teaching, "draw_views", return_value=views),
            mock.patch.object(teaching, "corrupt", return_value=corrupted),
        ):
            for step in range(STEPS):
                taught.student.zero_grad(set_to_none=True)
                total = taught.losses(step, pictures).total
                total.backward()
                total.item()

    return loop


def compare(work: Path, backbone: str, device: str, size: int, local_size: int) -> None:
    config = pretrain_config(
        backbone,
        global_size=size,
        local_size=local_size,
        local_views=2,
        clusters=1024,
        hidden=1024,
        epochs=1,
        warmup=0,
        batch=BATCH,
        device=device,
    )
    inputs, numbers = {"pixels": str(work / "pixels"), "images": str(work / "images")}, itertools.count()
    pretrain = lambda: run_whole(STAGE, config, inputs, str(work / f"{backbone}-{next(numbers)}"))  # noqa: E731
    name = f"pretrain {backbone} at {size} with two views of {local_size} on {device}: images/s over the bare loop"
    show(name, ratios(bare(config, work), pretrain, PAIRS))


def main(device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_photos(work / "pictures", BATCH * STEPS)
        run(INDEX, IndexConfig(source=FolderSource(root=str(work / "pictures"))), {}, str(work / "images"))
        run(PIXELS, PixelsConfig(image_size=(128, 128)), {"images": str(work / "images")}, str(work / "pixels"))
        compare(work, "vit_tiny_patch16_224", device, 96, 48)


if __name__ == "__main__":
    print("| pretrain | measured |\n|---|---|")
    main(*sys.argv[1:] or ["cpu"])
