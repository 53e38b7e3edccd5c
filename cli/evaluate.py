"""`maskmill evaluate …`."""

from typing import Any

import click

from ..manifests.files.place import place
from .answers import echo_json, show_few_shot, show_metrics, show_warnings
from .extract import SizeType
from .options import with_options


@click.group(context_settings={"max_content_width": 120})
def evaluate() -> None:
    """Judge what was made against ground truth."""


@evaluate.command()
@click.argument("predicted", metavar="MAPS|LABELS|DATASET")
@click.option("--against", metavar="IMAGES", default="", help="Images with masks; those it was made from if left out.")
@click.option("--class-agnostic", is_flag=True, help="Ask for foreground, not for its class.")
@click.option("--boundary/--no-boundary", default=True, show_default=True, help="F of outlines at 2 % of the diagonal.")
@click.option("--include-fitted", is_flag=True, help="Judge rows, too, whose masks something was fitted on.")
@click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--out", metavar="DIR", required=True, help="Where the metrics are kept.")
@click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only).")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def masks(predicted: str, against: str, out: str, break_lock: bool, as_json: bool, **values: Any) -> int:
    """mIoU with its interval, per class, coverage and floors, of maps, labels or a dataset."""
    import json

    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..manifests.errors import ConfigError
    from ..pipeline.running.whole import run_whole
    from ..stages.evaluate.stage import STAGE, evaluate_config

    opened = open_artifact(predicted, STAGE.roles["predicted"])
    images = place(against).uri if against else ""
    try:
        images = images or source_of(opened, "images")
    except ConfigError as error:  # which names the option of the other commands
        raise ConfigError(
            f"{opened.place} does not lead to the images that it was made from; pass their path as --against"
        ) from error
    inputs = {"predicted": opened.place.uri, "images": images}
    outcome = run_whole(STAGE, evaluate_config(**values), inputs, out, break_lock)
    metrics = json.loads(open_artifact(outcome.at, "metrics").file("metrics.json"))
    show_warnings(outcome)
    if as_json:
        echo_json(metrics)
        return outcome.exit_code
    show_metrics(metrics)
    click.echo(
        f"metrics: {'already done' if outcome.units_skipped else 'done'} in {outcome.seconds:.1f} s → {outcome.at}"
    )
    return outcome.exit_code


@evaluate.command()
@click.argument("checkpoints", metavar="CHECKPOINT …", nargs=-1, required=True)
@with_options(
    click.option("--tokens", metavar="DIR", default="", help="Stored tokens and support_tokens of what it looks at."),
    click.option("--features", type=click.Choice(["cached", "online"]), default="cached", show_default=True),
    click.option("--backbone", metavar="NAME", default="", help="Online: timm's name."),
    click.option("--weights", metavar="FILE", default="", help="Online: of the backbone, as extract takes them."),
    click.option(
        "--image-size", type=SizeType(), default=None, help="Online: S or HxW; the backbone's own if left out."
    ),
    click.option("--images", metavar="DIR", default="", help="Images with masks; those of the tokens if left out."),
    click.option(
        "--protocol",
        type=click.Choice(["classes", "pascal-5i", "coco-20i"]),
        default="classes",
        show_default=True,
        help="A benchmark's folds as they are published, or any split of classes.",
    ),
    click.option("--folds", metavar="DIR", default="", help="The benchmark's lists: trn and val, txt or pkl."),
    click.option(
        "--fold", type=int, multiple=True, help="Of each checkpoint in turn; 0, 1, … in their order if left out."
    ),
    click.option(
        "--classes",
        metavar="NAME,NAME",
        multiple=True,
        help="Judge these, of each checkpoint in turn; those that it has not learned if left out.",
    ),
    click.option("--way", type=click.IntRange(1), default=1, show_default=True, help="Classes of an episode."),
    click.option("--shot", type=click.IntRange(1), default=1, show_default=True, help="Pictures that show each."),
    click.option("--episodes", type=click.IntRange(1), default=1000, show_default=True, help="Of each fold."),
    click.option(
        "--support-mask",
        type=click.Choice(["pseudo", "enhanced", "gt"]),
        default="pseudo",
        show_default=True,
        help="From stored keys, from --labels, or ground truth.",
    ),
    click.option(
        "--labels",
        metavar="LABELS|DATASET",
        multiple=True,
        help="Enhanced masks of supports: of all checkpoints, or of each in turn.",
    ),
    click.option(
        "--void",
        type=click.Choice(["background", "ignore"]),
        default="background",
        show_default=True,
        help="What 255 in the truth is: background as CST's code has it, or left out as in HSNet.",
    ),
    click.option("--save-predictions", is_flag=True, help="Keep a row per episode beside the metrics, as Parquet."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER."),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Of the bootstrap."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap; episodes have none."
    ),
    click.option("--out", metavar="DIR", required=True, help="Where the metrics are kept."),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON."),
)
def fscs(
    checkpoints: tuple[str, ...],
    tokens: str,
    features: str,
    backbone: str,
    weights: str,
    image_size: tuple[int, int] | None,
    images: str,
    labels: tuple[str, ...],
    classes: tuple[str, ...],
    out: str,
    break_lock: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Few-shot classification and segmentation: exact ratio and mIoU on classes that were not learned.

    A CHECKPOINT is what `train --student cst` has made, or a file of the original training (.ckpt, .pt). Several are
    one for each fold. Exits 6 where something flatters the result. Stopped and started again it goes on.
    """
    import json

    from ..manifests.artifact.artifact import open_artifact
    from ..pipeline.running.whole import run_whole
    from ..stages.evaluate.few_shot import FSCS
    from ..stages.evaluate.few_shot_config import few_shot_config, few_shot_inputs
    from ..stages.students.features import backbone_config

    is_online = features == "online"
    if is_online != bool(backbone) or is_online == bool(tokens) or ((weights or image_size) and not is_online):
        raise click.UsageError(
            "Give either --tokens DIR, or --features online with --backbone NAME and what else is of it.",
            click.get_current_context(),
        )
    files, inputs = few_shot_inputs(checkpoints, tokens, images, labels)
    config = few_shot_config(
        files,
        classes=[[name.strip() for name in each.split(",") if name.strip()] for each in classes],
        seeing=backbone_config(backbone, weights, image_size, device=asked["device"]) if is_online else None,
        **asked,
    )
    outcome = run_whole(FSCS, config, inputs, out, break_lock)
    metrics = json.loads(open_artifact(outcome.at, "metrics").file("metrics.json"))
    if as_json:
        echo_json(metrics)
        return outcome.exit_code
    show_few_shot(metrics)
    for warning in outcome.warnings:
        click.echo(f"maskmill: warning: {warning}", err=True)
    done = "already done" if outcome.units_skipped else "done"
    click.echo(f"metrics: {done} in {outcome.seconds:.1f} s → {outcome.at}")
    return outcome.exit_code
