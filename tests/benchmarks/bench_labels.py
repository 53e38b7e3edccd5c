"""The published dataset as a torch loader reads it, against decoding the same pictures, and those with their masks.

Pictures of 500×375 pixels; the bare side opens a file and has Pillow decode it, in a loader of as many workers. What
the dataset does besides: it reads rows and masks, and compares sha256 and checksums. Timed after a first pass.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_labels.py [PICTURES]`
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from builders import small_labels
from builders.configs import make_config
from maskmill import Dataset as MaskDataset, open_dataset
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.published import frames
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

PAIRS = 7
SIZE = (375, 500)


class Bare(Dataset[list[torch.Tensor]]):
    """Files of pictures, decoded and nothing else."""

    def __init__(self, *folders: Sequence[Path]) -> None:
        self.examples = [[str(path) for path in paths] for paths in zip(*folders, strict=True)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [self.decoded(path) for path in self.examples[index]]

    @staticmethod
    def decoded(path: str) -> torch.Tensor:
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(picture if picture.mode == "P" else picture.convert("RGB")))


def make_dataset(home: Path, count: int) -> None:
    """Pictures with structure, as JPEG packs them in 60 kB, in one class, with soft maps of the toy stage."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)).astype(
            np.int16
        )
        noisy = np.clip(smooth + rng.integers(-12, 13, (*SIZE, 3)), 0, 255).astype(np.uint8)
        path = home / "pictures" / "cat" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=85)
    where: dict[str, str] = {}
    for name, stage, config in (
        ("images", INDEX, IndexConfig(source=FolderSource(root=str(home / "pictures")))),
        ("maps", small_labels.MAPS, small_labels.MapsConfig()),
        ("labels", REFINE, make_config(RefineConfig)),
    ):
        inputs = {role: uri for role, uri in where.items() if role in stage.command.roles}
        run(stage, config, inputs, str(home / name))
        where[name] = str(home / name)


@contextmanager
def loading(dataset: Dataset[Any], workers: int, shuffle: bool) -> Iterator[Callable[[], float]]:
    """Seconds of one pass, with the workers started before."""
    loader = DataLoader(
        dataset, batch_size=16, num_workers=workers, shuffle=shuffle, collate_fn=list, persistent_workers=workers > 0
    )

    def one_pass() -> float:
        began = time.perf_counter()
        for _ in loader:
            pass
        return time.perf_counter() - began

    one_pass()
    yield one_pass


def compare(name: str, labels: MaskDataset, bare: Sequence[Bare], workers: int, shuffle: bool = False) -> None:
    """A line: images per second, and the median of the ratio to each bare side, pass by pass."""
    with ExitStack() as stack:
        passes = [stack.enter_context(loading(each, workers, shuffle)) for each in (labels, *bare)]
        seconds = np.array([[one_pass() for one_pass in passes] for _ in range(PAIRS)])
    cells = [f"{len(labels) / np.median(seconds[:, 0]):.0f}"]
    for ratios in (seconds[:, 1:] / seconds[:, :1]).T:
        cells.append(f"{np.median(ratios):.2f} ({ratios.min():.2f}–{ratios.max():.2f})")
    print(f"| {name}, {workers} workers | {' | '.join(cells)} |")


def main(count: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_dataset(home, count)
        small_labels.publish(home, "linked", RunOptions())
        small_labels.publish(home, "inside", RunOptions(), embed_images=True)
        linked, inside = open_dataset(home / "linked"), open_dataset(home / "inside")
        pictures = sorted((home / "pictures").rglob("*.jpg"))
        masks = [path.with_suffix(".png") for path in pictures]
        for path, png in zip(masks, open_artifact(str(home / "labels")).cells("label", range(count)), strict=True):
            path.write_bytes(png or b"")
        bare = [Bare(pictures), Bare(pictures, masks)]
        for workers in (0, 2):
            compare("pictures beside", linked, bare, workers)
            compare("pictures inside", inside, bare, workers)
        frames.KEPT_BYTES = 0  # as of a dataset so large that hardly any row group comes again
        for workers in (0, 2):
            compare("pictures beside, shuffled", linked, bare, workers, shuffle=True)
            compare("pictures inside, shuffled", inside, bare, workers, shuffle=True)


if __name__ == "__main__":
    print("| loader | images/s | / pictures alone | / pictures and masks alone |\n|---|---|---|---|")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
