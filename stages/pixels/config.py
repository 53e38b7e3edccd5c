"""Options of `pixels`."""

from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, option
from ...manifests.errors import ConfigError
from ..choices import FitOrCrop, Size
from ..command import Command, Role

MAX_SIDE = 4096  # pixels: a row is one chunk, and a whole batch of pictures is in memory


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class PixelsConfig:
    image_size: Size = option(help=f"Size of every row in pixels, each side 1 to {MAX_SIDE}.", metavar="S|HxW")
    fit: FitOrCrop = option(
        "crop", "Keep the aspect ratio and crop to the centre, or pad with mid-grey; or ignore it and squash."
    )

    def __post_init__(self) -> None:
        check_config(self)
        if not all(1 <= side <= MAX_SIDE for side in self.image_size):
            rows_px, columns_px = self.image_size
            raise ConfigError(
                f"--image-size is {rows_px}x{columns_px}, expected sides of 1 to {MAX_SIDE} pixels; "
                "choose one such as 224 or 384x512"
            )


PIXELS = Command(
    name="pixels",
    makes="pixels",
    config=PixelsConfig,
    work=".pixels.stage:STAGE",
    roles={"images": Role(kind="images", metavar="IMAGES", help="Images artifact.")},
    help="Pretraining reads them instead of decoding at every epoch.",
    in_recipes=False,
)
