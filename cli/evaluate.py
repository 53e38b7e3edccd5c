"""`maskmill evaluate …`."""

from typing import Any

import click

from ..manifests.place import place
from .answers import echo_json, show_metrics, show_warnings


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
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", metavar="DIR", required=True, help="Where the metrics are kept.")
@click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only).")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def masks(predicted: str, against: str, out: str, break_lock: bool, as_json: bool, **values: Any) -> int:
    """mIoU with its interval, per class, coverage and floors, of maps, labels or a dataset."""
    import json

    from ..manifests.artifact import open_artifact, source_of
    from ..manifests.errors import ConfigError
    from ..pipeline.whole import run_whole
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
