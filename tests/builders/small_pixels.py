"""A folder with pictures of several shapes, their index, and the pixels that are made of them beside it."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from builders.picture_folder import PictureFolder
from builders.small_dataset import write_picture
from maskmill.manifests.artifact.pixels import Pixels, open_pixels
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE
from maskmill.stages.stage import Stage

ROWS_PX, COLUMNS_PX = 24, 32
UNITS_OF_5 = RunOptions(unit_rows=5, max_bad=1.0)
SHAPES = ((20, 16), (16, 20), (90, 30), (30, 90), (64, 48), (9, 8))  # width and height


class Bench(PictureFolder):
    def grow(self) -> None:
        """`index --update`."""
        config = IndexConfig(source=FolderSource(root=str(self.pictures)))
        run(INDEX, config, {}, str(self.images), RunOptions(unit_rows=4, max_bad=0.5, update=True))

    def run(self, out: Path, options: RunOptions = UNITS_OF_5, stage: Stage = STAGE, **asked: Any) -> Outcome:
        config = PixelsConfig(**{"image_size": (ROWS_PX, COLUMNS_PX), **asked})
        return run(stage, config, {"images": str(self.images)}, str(out), options)

    def make(self, options: RunOptions = UNITS_OF_5, **asked: Any) -> Pixels:
        """Into a new directory, read again."""
        out = self.new_out()
        self.run(out, options, **asked)
        return open_pixels(out)

    def picture(self, identifier: str) -> Image.Image:
        """Decoded by nobody of ours."""
        with Image.open(self.pictures / f"{identifier}.png") as image:
            upright = image.transpose(Image.Transpose.ROTATE_270) if identifier == "dog/11" else image
            return upright.convert("RGB")


def bench_of(home: Path) -> Bench:
    """Twelve pictures, the last of them stored on its side."""
    bench = Bench(home)
    for number in range(12):
        write_picture(bench.pictures / f"{('cat', 'dog')[number % 2]}/{number}.png", number, SHAPES[number % 6])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(bench.pictures / "dog/11.png") as picture:
        picture.save(bench.pictures / "dog/11.png", exif=exif)
    bench.index()
    return bench


def everything(pixels: Pixels) -> np.ndarray:
    return pixels.at(range(len(pixels)))
