"""Pretraining against a bare forward and backward of the same networks on ready views.

The bare side has student, teacher, heads and losses, and the same views of one batch at every step; it reads, crops,
colours and masks nothing, and updates no weights. A step of it follows each step of a training and is paired with it;
what comes before the first step and after the last is told apart.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_pretrain.py [DEVICE]`
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from benchmarks.paired import seconds, show, write_photos
from builders.configs import make_config
from maskmill.manifests.artifact.pixels import open_pixels
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS
from maskmill.stages.pretrain import stage, teaching
from maskmill.stages.pretrain.config import PretrainConfig
from maskmill.stages.pretrain.draws import draws_at
from maskmill.stages.pretrain.stage import make_teaching
from maskmill.stages.pretrain.teaching import NUM_GLOBAL, Teaching
from maskmill.stages.pretrain.views import draw_views
from maskmill.stages.vision.backbone import backbone_facts

BATCH, WARM_UP = 32, 2


def bare(config: PretrainConfig, work: Path) -> Callable[[], None]:
    """A step of it."""
    facts = backbone_facts(config.backbone, config.global_size, config.global_size)
    taught = make_teaching(config, facts.mean, facts.std, 1_000)
    pictures = torch.from_numpy(open_pixels(work / "pixels").at(range(BATCH))).permute(0, 3, 1, 2).to(config.device)
    draws = draws_at(0, 0)
    views = draw_views(pictures, taught.strengths, facts.mean, facts.std, draws)
    corrupted = taught._corrupt_views(views[:NUM_GLOBAL], draws)

    def step() -> None:
        with (
            mock.patch.object(teaching, "draw_views", return_value=views),
            mock.patch.object(taught, "_corrupted", return_value=corrupted),
        ):
            taught.student.zero_grad(set_to_none=True)
            total = taught.losses(0, pictures).total
            total.backward()
            total.item()

    return step


def compare(work: Path, backbone: str, device: str, steps: int) -> None:
    """Against an epoch of so many steps, without looking at pictures after it: of a large set that is nothing."""
    home = work / str(steps)
    write_photos(home / "pictures", BATCH * steps)
    run(INDEX, IndexConfig(source=FolderSource(root=str(home / "pictures"))), {}, str(home / "images"))
    run(PIXELS, PixelsConfig(image_size=(128, 128)), {"images": str(home / "images")}, str(home / "pixels"))
    config = make_config(
        PretrainConfig,
        backbone=backbone,
        global_size=96,
        local_size=48,
        local_views=2,
        clusters=1024,
        hidden=1024,
        epochs=1,
        batch=BATCH,
        device=device,
    )
    inputs = {"pixels": str(home / "pixels"), "images": str(home / "images")}
    bare_step, after = bare(config, home), Teaching.update_teacher
    own_s, bare_s = list[float](), list[float]()
    ended = time.perf_counter()

    def then_bare(self: Teaching, momentum: float) -> None:
        nonlocal ended
        after(self, momentum)
        own_s.append(time.perf_counter() - ended)
        bare_s.append(seconds(bare_step))
        ended = time.perf_counter()

    with (
        mock.patch.multiple(stage, watched_values=lambda *args: {}, collapse=lambda *args: ""),
        mock.patch.object(Teaching, "update_teacher", then_bare),
    ):
        whole_s = seconds(lambda: run_whole(stage.STAGE, config, inputs, str(home / backbone)))
    name = f"pretrain {backbone} at 96 with two views of 48 on {device}, {steps} steps of {BATCH}: over the bare loop"
    show(name, [b / own for b, own in zip(bare_s, own_s, strict=True)][WARM_UP:])
    rest_s = whole_s - sum(bare_s) - (len(own_s) - 1) * statistics.median(own_s[WARM_UP:])
    print(f"| … all else, one step included | {rest_s:.1f} s |", flush=True)


def main(device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), "vit_tiny_patch16_224", device, 22)
        compare(Path(folder), "vit_small_patch16_224", device, 12)


if __name__ == "__main__":
    print("| pretrain | measured |\n|---|---|")
    main(*sys.argv[1:] or ["cpu"])
