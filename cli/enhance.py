"""`maskmill enhance …`."""

from collections.abc import Mapping
from typing import Any

import click

from ..manifests.files.place import place
from .answers import show_outcome, with_interval
from .options import run_stage, stage_options, with_options


@click.group(context_settings={"max_content_width": 120})
def enhance() -> None:
    """Make better maps of the maps of heads, by a small network that is fitted on a few ground-truth masks."""


@enhance.command()
@click.argument("maps")
@with_options(
    click.option(
        "--gt-fraction",
        type=float,
        default=0.0,
        help="Learn from this share of the pictures with ground truth of each class, such as 0.1.",
    ),
    click.option("--gt-per-class", type=int, default=0, help="Or from so many of each class, such as 5."),
    click.option("--gt-list", metavar="FILE", default="", help="Or from those whose ids are in FILE, one a line."),
    click.option("--classes", metavar="NAME,NAME", default="", help="Learn from these classes only; names or numbers."),
    click.option(
        "--cross-fit",
        type=int,
        default=0,
        help="So many networks, each held out for a part of the pictures that were learned from.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn, and learned."),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
    click.option("--out", metavar="DIR", required=True, help="Where the checkpoint is made."),
    click.option("--break-lock", is_flag=True, help="Take over the lock of a run that died (object stores only)."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
def fit(
    maps: str, gt_list: str, classes: str, images: str, out: str, break_lock: bool, as_json: bool, **asked: Any
) -> int:
    """Fit an enhancer on MAPS, a maps artifact with heads, and on masks of its images: the checkpoint that apply takes.

    A fifth of the pictures that it learns from tells when to stop; all others that have a mask tell what it is worth.
    Exits 6 where the maps do not become better. Stopped and started again it goes on from its last checkpoint.
    """
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..manifests.published.schema import read_id_list
    from ..pipeline.running.whole import run_whole
    from ..stages.enhance.enhancer_fit import FIT, enhancer_config

    named = [name.strip() for name in classes.split(",") if name.strip()]
    config = enhancer_config(gt_list=read_id_list(gt_list) if gt_list else (), classes=named, **asked)
    opened = open_artifact(maps, "maps")
    inputs = {"maps": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    outcome = run_whole(FIT, config, inputs, out, break_lock)
    if not as_json:
        _show_worth(outcome.counts["held_out"])
    return show_outcome(outcome, as_json)


@enhance.command()
@click.argument("maps")
@click.argument("enhancer")
@with_options(
    click.option(
        "--threshold",
        default="0.5",
        show_default=True,
        help="otsu, a number, or kept-mass:SHARE. Kept with each map, cut by refine.",
    ),
    click.option("--images", metavar="DIR", default="", help="Where the images artifact lies now, if it was moved."),
)
@stage_options
def apply(maps: str, enhancer: str, threshold: str, images: str, **values: Any) -> int:
    """Make the maps that ENHANCER, a checkpoint of fit, gives of MAPS, of the kind that it was fitted on."""
    from ..manifests.artifact.artifact import open_artifact, source_of
    from ..stages.enhance.stage import STAGE, enhance_config

    config = enhance_config(threshold)
    opened = open_artifact(maps, "maps")
    inputs = {
        "maps": opened.place.uri,
        "images": place(images).uri if images else source_of(opened, "images"),
        "model": place(enhancer).uri,
    }
    return run_stage(STAGE, config, inputs, values)


def _show_worth(held_out: Mapping[str, Any]) -> None:
    if not held_out["pictures"]:
        return
    before, after, by = (with_interval(held_out[name]) for name in ("before", "after", "difference"))
    click.echo(
        f"mIoU on {held_out['pictures']} pictures that were not seen: before {before}, after {after}; difference {by}"
    )
