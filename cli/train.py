"""`maskmill train DATASET`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from ..manifests.files.place import place
from .answers import show_outcome, with_interval
from .extract import SizeType
from .options import with_options


@click.command()
@click.argument("dataset")
@with_options(
    click.option(
        "--student",
        type=click.Choice(["linear", "cst"]),
        required=True,
        help="linear: patches by their last tokens, in a minute. cst: few-shot classification and segmentation.",
    ),
    click.option("--tokens", metavar="DIR", default="", help="Stored tokens of the same pictures."),
    click.option("--features", type=click.Choice(["cached", "online"]), default="cached", show_default=True),
    click.option("--backbone", metavar="NAME", default="", help="Online: timm's name."),
    click.option("--weights", metavar="FILE", default="", help="Online: of the backbone, as extract takes them."),
    click.option(
        "--image-size", type=SizeType(), default=None, help="Online: S or HxW; the backbone's own if left out."
    ),
    click.option(
        "--fit", type=click.Choice(["squash", "pad"]), default="squash", show_default=True, help="Online: of the view."
    ),
    click.option("--images", metavar="DIR", default="", help="Images with masks; those of the dataset if left out."),
    click.option("--hidden", type=click.IntRange(0), default=0, show_default=True, help="Linear: of a second layer."),
    click.option(
        "--supervision",
        type=click.Choice(["pseudo", "published", "mask", "mixed"]),
        default="published",
        show_default=True,
        help="CST: by stored keys and class queries, the dataset's masks, ground truth, or a dataset that holds both.",
    ),
    click.option("--classes", metavar="NAME,NAME", default="", help="CST: learn these only; names or numbers."),
    click.option(
        "--select",
        type=click.Choice(["last", "held-out", "upstream"]),
        default="last",
        show_default=True,
        help="CST: which step is kept; upstream is the original's choice, on ground truth of classes not learned.",
    ),
    click.option("--steps", type=int, default=None, help="500 for linear and 2000 for cst if left out."),
    click.option("--batch", type=int, default=None, help="Pictures (16) or pairs (12) of a step."),
    click.option("--learning-rate", type=float, default=None, help="0.01 for linear and 0.001 for cst if left out."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything that is drawn."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER."),
    click.option("--tensorboard", metavar="DIR", default="", help="Draw the metric lines there as curves."),
    click.option("--out", metavar="DIR", required=True, help="Where the checkpoint is made."),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
def train(
    dataset: str,
    student: Any,
    tokens: str,
    features: str,
    backbone: str,
    weights: str,
    image_size: tuple[int, int] | None,
    fit: Any,
    images: str,
    classes: str,
    device: str,
    tensorboard: str,
    out: str,
    break_lock: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Train a student on DATASET, from stored tokens or with the backbone in the loop: a checkpoint to be evaluated.

    Stopped and started again it goes on from its last checkpoint. Exits 6 where nothing tells what it is worth.
    """
    from ..manifests.artifact.artifact import open_artifact
    from ..pipeline.running.whole import run_whole
    from ..stages.learning.curves import open_curves
    from ..stages.students.features import backbone_config
    from ..stages.train.config import train_config
    from ..stages.train.stage import STAGE

    is_online = features == "online"
    of_online = weights or image_size or fit != "squash"
    if is_online == bool(tokens) or is_online != bool(backbone) or (of_online and not is_online):
        raise click.UsageError(
            "Give either --tokens DIR, or --features online with --backbone NAME and what else is of it.",
            click.get_current_context(),
        )
    learns_on = "cpu" if is_online and student == "linear" else device
    named = [name.strip() for name in classes.split(",") if name.strip()]
    config = train_config(student, classes=named, device=learns_on, **asked)
    if is_online:
        config = replace(config, seeing=backbone_config(backbone, weights, image_size, fit, device))
    opened = open_artifact(dataset, "dataset")
    inputs = {"dataset": opened.place.uri, **({"tokens": place(tokens).uri} if tokens else {})}
    if found := place(images).uri if images else _images_of(opened):
        inputs["images"] = found
    with open_curves(tensorboard) as show:
        outcome = run_whole(STAGE, config, inputs, out, break_lock, show)
    if not as_json:
        _show_worth(outcome.counts.get("judged", {}))
    return show_outcome(outcome, as_json)


def _images_of(dataset: Any) -> str:
    """Those that it was made from, where they are still there: a dataset that was handed on comes without."""
    from ..manifests.artifact.artifact import source_of
    from ..manifests.errors import ConfigError

    try:
        return source_of(dataset, "images")
    except ConfigError:
        return ""


def _show_worth(judged: Mapping[str, Any]) -> None:
    if not judged.get("pictures"):
        return
    click.echo(f"{judged['pictures']} pictures that were not learned from:")
    width = max(len(line["name"]) for line in judged["lines"])
    click.echo(f"  {'':{width}}  {'mIoU':21}  mIoU without background")
    for line in judged["lines"]:
        miou, foreground = (with_interval(line[name]) for name in ("miou", "miou_foreground"))
        click.echo(f"  {line['name']:{width}}  {miou:21}  {foreground}")
