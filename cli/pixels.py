"""`maskmill pixels IMAGES`."""

from typing import Any

import click

from ..manifests.files.place import place
from .extract import SizeType
from .options import run_stage, stage_options, with_options


@click.command()
@click.argument("images")
@with_options(
    click.option("--image-size", type=SizeType(), required=True, help="Of every row, in pixels."),
    click.option(
        "--fit",
        type=click.Choice(["crop", "pad", "squash"]),
        default="crop",
        show_default=True,
        help="Keep the aspect and cut off what is beyond the centre, or pad with mid-grey; or ignore it.",
    ),
)
@stage_options
def pixels(images: str, image_size: tuple[int, int], fit: Any, **values: Any) -> int:
    """Decode and resize the pictures of IMAGES, an images artifact, once, for pretraining and pixel students."""
    from ..stages.pixels.stage import STAGE, PixelsConfig

    return run_stage(STAGE, PixelsConfig(image_size=image_size, fit=fit), {"images": place(images).uri}, values)
