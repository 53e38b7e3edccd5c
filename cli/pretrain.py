"""`maskmill pretrain PIXELS`."""

from typing import Any

import click

from ..manifests.files.place import place
from .answers import show_outcome
from .options import with_options


@click.command()
@click.argument("pixels")
@with_options(
    click.option("--backbone", metavar="NAME", required=True, help="timm's name, such as vit_small_patch16_224."),
    click.option(
        "--losses",
        default="cls,patch,reconstruction",
        show_default=True,
        help="What is learned from: cls and patch clustering, reconstruction, contrastive; weights as in patch:0.5.",
    ),
    click.option(
        "--avoidance",
        type=click.Choice(["centering", "sinkhorn", "me-max", "sinkhorn+me-max"]),
        default="centering",
        show_default=True,
        help="What keeps clusters from collapsing.",
    ),
    click.option(
        "--patches",
        type=click.Choice(["all", "masked"]),
        default="all",
        show_default=True,
        help="Those that have a part in the patch loss.",
    ),
    click.option("--reconstruction", type=click.Choice(["mse", "l1"]), default="mse", show_default=True),
    click.option(
        "--align",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Masks begin and end at multiples of so many pixels; 0: of the patch.",
    ),
    click.option(
        "--global-size", type=click.IntRange(1), default=224, show_default=True, help="Of the two larger views."
    ),
    click.option("--local-size", type=click.IntRange(1), default=96, show_default=True, help="Of the smaller views."),
    click.option("--local-views", type=click.IntRange(0), default=10, show_default=True, help="How many of these."),
    click.option("--clusters", type=click.IntRange(2), default=8192, show_default=True),
    click.option("--hidden", type=click.IntRange(1), default=2048, show_default=True, help="Width of the heads."),
    click.option("--epochs", type=click.IntRange(1), default=100, show_default=True),
    click.option(
        "--warmup",
        type=click.IntRange(0),
        default=None,
        help="Epochs of rising rate; a tenth of all, at most 10, if left out.",
    ),
    click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Pictures in a step."),
    click.option("--learning-rate", type=float, default=5e-4, show_default=True, help="Of 256 pictures in a step."),
    click.option("--momentum", type=float, default=0.996, show_default=True, help="Of the teacher; rises to 1."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER."),
    click.option("--autocast", type=click.Choice(["off", "bfloat16"]), default="off", show_default=True),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
    click.option(
        "--licence", metavar="TEXT", default="unknown", show_default=True, help="Of the weights: a URL or name."
    ),
    click.option("--tensorboard", metavar="DIR", default="", help="Draw the metric lines there as curves."),
    click.option("--out", metavar="DIR", required=True, help="Where the checkpoint is made."),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
def pretrain(
    pixels: str,
    backbone: str,
    images: str,
    tensorboard: str,
    out: str,
    break_lock: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Pretrain a vision transformer on PIXELS, a pixels artifact, without labels: a checkpoint for extract --weights.

    Stopped and started again it goes on from its last checkpoint.
    """
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..pipeline.running.together import run_together
    from ..stages.learning.curves import open_curves
    from ..stages.pretrain.config import pretrain_config
    from ..stages.pretrain.stage import STAGE

    config = pretrain_config(backbone, **asked)
    opened = open_artifact(pixels, "pixels")
    inputs = {"pixels": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    with open_curves(tensorboard) as show:
        outcome = run_together(STAGE, config, inputs, out, break_lock, show)
    return show_outcome(outcome, as_json) if outcome else 0
