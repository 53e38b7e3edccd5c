"""`maskmill refine MAPS`."""

from typing import Any

import click

from ..manifests.files.place import place
from .options import run_stage, stage_options, with_options


@click.command()
@click.argument("maps")
@with_options(
    click.option(
        "--refiner",
        type=click.Choice(["none", "crf", "par", "guided"]),
        default="none",
        show_default=True,
        help="crf needs the extra of that name. On a CPU each keeps one core busy: --workers N uses more.",
    ),
    click.option(
        "--preset",
        metavar="NAME",
        default="",
        help="The refiner's parameters: of crf irn if left out; of par toco (10 iterations), afa or afa-coco (15); of "
        "guided RADIUS,EPS, 15,0.001 if left out.",
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER, of par and guided."),
    click.option(
        "--background",
        metavar="RULE",
        default="rows",
        show_default=True,
        help="rows (each map's own threshold), constant:SCORE, power:EXPONENT, two:LOW,HIGH (255 between), map, "
        "or preset (as the preset's authors have it; for maps scaled to 0–1).",
    ),
    click.option("--threshold", type=float, help="For all maps, in the place of their own."),
    click.option(
        "--class-maps", metavar="MAPS", default="", help="Maps of classes, to name objects found without one."
    ),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
)
@stage_options
def refine(
    maps: str,
    refiner: Any,
    preset: str,
    device: str,
    background: str,
    threshold: float | None,
    class_maps: str,
    images: str,
    **values: Any,
) -> int:
    """Make label maps at each picture's own size from MAPS, a maps artifact."""
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..stages.refine.stage import STAGE, refine_config

    config = refine_config(refiner, preset, background, threshold, device)
    opened = open_artifact(maps, "maps")
    inputs = {"maps": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    return run_stage(STAGE, config, inputs | ({"class_maps": place(class_maps).uri} if class_maps else {}), values)
