"""Tokens and maps of a dozen small pictures in a second, by timm's smallest vision transformer: two splits, three
classes, labels of every kind, a picture that cannot be read, and one that is not what was indexed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from builders.configs import make_config
from builders.small_dataset import write_picture
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.stage import STAGE as MASK

BACKBONE, SIZE = "test_vit.r160_in1k", (64, 96)  # 4 × 6 patches, 2 heads
CLASSES = ("bird", "cat", "dog")  # 1, 2, 3
Labelled = Mapping[str, tuple[str, str]]  # id → labels and split
PICTURES: Labelled = {
    "cat/0": ("cat", "train"),
    "cat/1": ("cat", "train"),
    "cat/2": ("cat", "train"),
    "both/3": ("cat|dog", "train"),
    "broken": ("cat", "train"),  # its bytes end too early
    "dog/4": ("dog", "train"),
    "dog/5": ("dog", "train"),
    "changed": ("dog", "train"),  # since it was indexed
    "bird/6": ("bird", "train"),  # alone of its class
    "none/7": ("", "train"),
    "cat/8": ("cat", "val"),  # alone of its class in its split
    "dog/9": ("dog", "val"),
    "dog/10": ("dog", "val"),  # stored on its side, to be turned clockwise
}
UNITS_OF_5 = RunOptions(unit_rows=5, max_bad=0.5)


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with pictures, their index, and what is made of them beside it."""

    home: Path
    made: dict[str, Path] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def images(self) -> Path:
        return self.home / "images"

    def new_out(self) -> Path:
        return self.home / f"out-{next(self._numbers)}"

    def index(self, pictures: Labelled = PICTURES, update: bool = False, classes: tuple[str, ...] = CLASSES) -> None:
        lines = [f"{name}.png,{labels},{split}" for name, (labels, split) in pictures.items()]
        table = self.home / "table.csv"
        table.write_text("\n".join(["path,labels,split", *lines]) + "\n")
        config = IndexConfig(source=TableSource(file=str(table), classes=classes))
        run(INDEX, config, {}, str(self.images), RunOptions(unit_rows=5, max_bad=0.5, update=update))

    def tokens(self, **asked: Any) -> Tokens:
        """Made once for each way of asking."""
        key = repr(sorted(asked.items()))
        if key not in self.made:
            self.made[key] = self.new_out()
            self.extract(self.made[key], **asked)
        return open_tokens(str(self.made[key]))

    def extract(self, out: Path, **asked: Any) -> Outcome:
        wanted = {"backbone": BACKBONE, "weights": "random:0", "image_size": SIZE, "dtype": "float32", **asked}
        return run(EXTRACT, make_config(ExtractConfig, **wanted), {"images": str(self.images)}, str(out), UNITS_OF_5)

    def mask(
        self, tokens: Tokens, options: RunOptions = UNITS_OF_5, model: Path | None = None, **asked: Any
    ) -> Artifact:
        """Into a new directory, read again."""
        out = self.new_out()
        self.mask_into(out, tokens, options, model, **asked)
        return open_artifact(str(out), "maps")

    def mask_into(
        self, out: Path, tokens: Tokens, options: RunOptions = UNITS_OF_5, model: Path | None = None, **asked: Any
    ) -> Outcome:
        inputs = {"tokens": tokens.artifact.place.uri, "images": str(self.images)}
        inputs |= {"model": str(model)} if model else {}
        return run(MASK, make_config(MaskConfig, {"tokens": tokens.artifact}, **asked), inputs, str(out), options)


def bench_of(home: Path, changed: bool = True) -> Bench:
    bench = Bench(home)
    for seed, name in enumerate(PICTURES):
        write_picture(home / f"{name}.png", seed, (20 + 7 * (seed % 4), 16 + 5 * (seed % 3)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(home / "dog/10.png") as picture:
        picture.save(home / "dog/10.png", exif=exif)
    broken = home / "broken.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    bench.index()
    if changed:
        write_picture(home / "changed.png", 99)
    return bench
